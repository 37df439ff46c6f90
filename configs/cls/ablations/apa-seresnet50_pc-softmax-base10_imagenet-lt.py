# PC-softmax with the offset 'base10' (Table 4c; the recipe: 'raw').
_base_ = '../imagenet_lt/apa-seresnet50_4xb64-mixup-200e_imagenet-lt.py'
model = dict(head=dict(logit_offset=dict(type='base10')))
