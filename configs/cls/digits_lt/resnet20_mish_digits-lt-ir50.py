# No attention, Mish units.
_base_ = './resnet20_aglu_digits-lt-ir50.py'
model = dict(backbone=dict(act_cfg=dict(type='apa_mm.Mish')))
