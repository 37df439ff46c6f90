# The squeeze-and-excitation baseline of our ResNets: sigmoid gates, ReLU.
seresnet = dict(
    act_cfg=dict(type='ReLU', inplace=True),
    attention_cfg=dict(
        type='apa_mm.ChannelAttention',
        gate_cfg=dict(type='Sigmoid'),
        norm_cfg=None,
        dropout=0.))
