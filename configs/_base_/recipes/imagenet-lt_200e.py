# ImageNet-LT (Table 8): cosine classifier with scale 16, cross entropy; the
# prior of the training set is divided out at test time (PC-softmax).
_base_ = [
    '../models/resnet50_cls.py', '../datasets/imagenet-lt.py',
    '../schedules/sgd-coslr_200e.py'
]
model = dict(
    head=dict(type='apa_mm.CosineClsHead', logit_offset=dict(type='raw')))
custom_hooks = [dict(type='apa_mm.ClassFrequencyHook')]
