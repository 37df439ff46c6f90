# Squeeze-and-excitation with sigmoid gates, ReLU units.
_base_ = './apa-seresnet20_relu_digits-lt-ir50.py'
model = dict(
    backbone=dict(
        attention_cfg=dict(
            type='apa_mm.ChannelAttention',
            reduction=4,
            gate_cfg=dict(type='Sigmoid'),
            norm_cfg=None,
            dropout=0.)))
