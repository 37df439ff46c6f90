# CBAM with APA gates in both parts, AGLU units.
_base_ = '../../_base_/recipes/imagenet_100e.py'
gate_cfg = dict(type='apa_mm.APA', kappa_init=(0., 1.))
model = dict(
    backbone=dict(
        attention_cfg=dict(type='apa_mm.CBAM', gate_cfg=gate_cfg)))
