# SE baseline, depth 101.
_base_ = './seresnet50_4xb64-mixup-100e_in1k.py'
model = dict(backbone=dict(depth=101))
