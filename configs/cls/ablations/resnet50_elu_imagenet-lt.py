# No attention, ELU units.
_base_ = './resnet50_aglu_imagenet-lt.py'
model = dict(backbone=dict(act_cfg=dict(type='ELU')))
