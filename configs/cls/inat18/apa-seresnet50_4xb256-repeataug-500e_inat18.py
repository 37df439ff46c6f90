# APA gates without LayerNorm and dropout, as the paper says for this set, and
# AGLU units.
_base_ = '../../_base_/recipes/inat18_500e.py'
model = dict(
    backbone=dict(
        attention_cfg=dict(
            type='apa_mm.ChannelAttention',
            gate_cfg=dict(type='apa_mm.APA', kappa_init=(0., 1.)),
            norm_cfg=None,
            dropout=0.)))
