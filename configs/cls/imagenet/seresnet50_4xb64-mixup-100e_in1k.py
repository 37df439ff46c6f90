# SE baseline: sigmoid gates, ReLU units.
_base_ = [
    '../../_base_/recipes/imagenet_100e.py', '../../_base_/models/seresnet.py'
]
model = dict(backbone=_base_.seresnet)
