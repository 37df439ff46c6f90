# No attention, ReLU units (Tables 4f and 9).
_base_ = './resnet50_aglu_imagenet-lt.py'
model = dict(backbone=dict(act_cfg=dict(type='ReLU')))
