# The baseline: SE-ResNet-18 with ReLU and sigmoid gates, softmax classifier.
_base_ = [
    '../_base_/models/mask-rcnn_apa-seresnet18_fpn_tiny.py',
    '../_base_/datasets/digits-lvis_instance.py',
    '../_base_/schedules/adamw_500i.py'
]
model = dict(
    backbone=dict(
        act_cfg=dict(type='ReLU', inplace=True),
        attention_cfg=dict(
            type='apa_mm.ChannelAttention',
            gate_cfg=dict(type='Sigmoid'),
            norm_cfg=None,
            dropout=0.)))
