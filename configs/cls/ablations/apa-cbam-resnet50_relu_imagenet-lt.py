# Channel and spatial attention with APA gates, ReLU units (Table 4b).
_base_ = './apa-cbam-resnet50_imagenet-lt.py'
model = dict(backbone=dict(act_cfg=dict(type='ReLU', inplace=True)))
