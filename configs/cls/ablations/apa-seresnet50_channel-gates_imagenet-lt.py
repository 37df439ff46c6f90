# One kappa and lambda per channel in the gates (Table 13).
_base_ = '../imagenet_lt/apa-seresnet50_4xb64-mixup-200e_imagenet-lt.py'
model = dict(
    backbone=dict(
        attention_cfg=dict(
            type='apa_mm.ChannelAttention',
            gate_cfg=dict(type='apa_mm.APA', num_parameters='channels'))))
