# One kappa and lambda per channel in the gates (Table 13).
_base_ = '../../_base_/recipes/imagenet-lt_200e.py'
gate_cfg = dict(type='apa_mm.APA', num_parameters='channels')
model = dict(
    backbone=dict(
        attention_cfg=dict(
            type='apa_mm.ChannelAttention', gate_cfg=gate_cfg)))
