# APA gates without LayerNorm and dropout, ReLU units.
_base_ = './apa-seresnet50_4xb256-repeataug-500e_inat18.py'
model = dict(backbone=dict(act_cfg=dict(type='ReLU', inplace=True)))
