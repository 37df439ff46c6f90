# SE baseline: sigmoid gates, ReLU units.
_base_ = './apa-seresnet50_4xb64-mixup-200e_imagenet-lt.py'
model = dict(
    backbone=dict(
        act_cfg=dict(type='ReLU', inplace=True),
        attention_cfg=dict(
            type='apa_mm.ChannelAttention',
            gate_cfg=dict(type='Sigmoid'),
            norm_cfg=None,
            dropout=0.)))
