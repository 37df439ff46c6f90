# SE-R50 with tempered Gumbel gates, ReLU units (Table 4a).
_base_ = '../imagenet_lt/seresnet50_4xb64-mixup-200e_imagenet-lt.py'
gate_cfg = dict(type='apa_mm.TemperedGumbel')
model = dict(backbone=dict(attention_cfg=dict(gate_cfg=gate_cfg)))
