# SE baseline, depth 152.
_base_ = './seresnet50_4xb64-mixup-100e_in1k.py'
model = dict(backbone=dict(depth=152))
