# APA* gates and AGLU units, depth 101.
_base_ = './apa-seresnet50_4xb64-mixup-100e_in1k.py'
model = dict(backbone=dict(depth=101))
