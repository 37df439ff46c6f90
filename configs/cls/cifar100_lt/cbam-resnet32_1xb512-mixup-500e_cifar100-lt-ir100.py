# CBAM baseline: sigmoid gates, ReLU units.
_base_ = './apa-cbam-resnet32_1xb512-mixup-500e_cifar100-lt-ir100.py'
model = dict(
    backbone=dict(
        act_cfg=dict(type='ReLU', inplace=True),
        attention_cfg=dict(gate_cfg=dict(type='Sigmoid'))))
