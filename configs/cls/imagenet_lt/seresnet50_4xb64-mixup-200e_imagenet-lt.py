# SE baseline: sigmoid gates, ReLU units.
_base_ = [
    '../../_base_/recipes/imagenet-lt_200e.py',
    '../../_base_/models/seresnet.py'
]
model = dict(backbone=_base_.seresnet)
