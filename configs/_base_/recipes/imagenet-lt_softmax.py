# ImageNet-LT, cross entropy without any correction (Table 4c).
_base_ = './imagenet-lt_200e.py'
model = dict(head=dict(logit_offset=None))
custom_hooks = []
