# Plain ResNet-50, cosine classifier, 200 epochs (Table 14).
_base_ = './resnet50_plain-200e_imagenet-lt.py'
model = dict(head=dict(type='apa_mm.CosineClsHead'))
