# CBAM with APA gates in both parts, AGLU units.
_base_ = './apa-seresnet32_1xb512-mixup-500e_cifar100-lt-ir100.py'
model = dict(
    backbone=dict(attention_cfg=dict(type='apa_mm.CBAM', reduction=4)))
