# No attention, AGLU units.
_base_ = './apa-seresnet20_aglu_digits-lt-ir50.py'
model = dict(backbone=dict(attention_cfg=None))
