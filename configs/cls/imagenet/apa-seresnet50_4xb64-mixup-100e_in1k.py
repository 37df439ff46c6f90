# APA* gates and AGLU units.
_base_ = '../../_base_/recipes/imagenet_100e.py'
model = dict(
    backbone=dict(
        attention_cfg=dict(
            type='apa_mm.ChannelAttention',
            # The paper's range for ImageNet-1K; long-tailed sets: (-1, 0).
            gate_cfg=dict(type='apa_mm.APA', kappa_init=(0., 1.)))))
