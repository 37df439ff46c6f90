# No attention, AGLU units.
_base_ = './apa-seresnet50_4xb64-mixup-100e_in1k.py'
model = dict(backbone=dict(attention_cfg=None))
