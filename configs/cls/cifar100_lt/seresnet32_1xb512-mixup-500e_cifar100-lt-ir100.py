# SE baseline: sigmoid gates, ReLU units.
_base_ = './apa-seresnet32_1xb512-mixup-500e_cifar100-lt-ir100.py'
model = dict(
    backbone=dict(
        act_cfg=dict(type='ReLU', inplace=True),
        attention_cfg=dict(
            type='apa_mm.ChannelAttention',
            reduction=4,
            gate_cfg=dict(type='Sigmoid'),
            norm_cfg=None,
            dropout=0.)))
