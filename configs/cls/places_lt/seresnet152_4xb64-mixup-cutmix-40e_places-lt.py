# SE baseline: sigmoid gates, ReLU units.
_base_ = './apa-seresnet152_4xb64-mixup-cutmix-40e_places-lt.py'
model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='checkpoints/seresnet152_in1k.pth'),
        act_cfg=dict(type='ReLU', inplace=True),
        attention_cfg=dict(
            type='apa_mm.ChannelAttention',
            gate_cfg=dict(type='Sigmoid'),
            norm_cfg=None,
            dropout=0.)))
