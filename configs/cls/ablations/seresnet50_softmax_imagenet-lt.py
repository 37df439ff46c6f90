# Cross entropy without any correction on SE-ResNet-50 (Table 4c).
_base_ = [
    '../../_base_/recipes/imagenet-lt_softmax.py',
    '../../_base_/models/seresnet.py'
]
model = dict(backbone=_base_.seresnet)
