# kappa of the gates from (0, 1) (Table 12; the recipe: (-1, 0)).
_base_ = '../../_base_/recipes/imagenet-lt_200e.py'
gate_cfg = dict(type='apa_mm.APA', kappa_init=(0., 1.))
model = dict(
    backbone=dict(
        attention_cfg=dict(
            type='apa_mm.ChannelAttention', gate_cfg=gate_cfg)))
