# APA gates with dropout, ReLU units (Table 4e, third row).
_base_ = './seresnet50_apa-gate_imagenet-lt.py'
model = dict(backbone=dict(attention_cfg=dict(dropout=0.1)))
