# Plain ResNet-50: no attention, ReLU units.
_base_ = './resnet50_aglu_4xb64-mixup-100e_in1k.py'
model = dict(backbone=dict(act_cfg=dict(type='ReLU', inplace=True)))
