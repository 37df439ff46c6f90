# SE-ResNet-50 with ReLU and sigmoid gates: the baseline of Table 6b.
_base_ = './cascade-rcnn_apa-seresnet50_fpn_wc_sample1e-3-ms-2x_v3det.py'
model = dict(
    backbone=dict(
        act_cfg=dict(type='ReLU', inplace=True),
        attention_cfg=dict(
            type='apa_mm.ChannelAttention',
            gate_cfg=dict(type='Sigmoid'),
            norm_cfg=None,
            dropout=0.),
        init_cfg=dict(checkpoint='checkpoints/seresnet50_in1k.pth')))
