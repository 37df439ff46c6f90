# SE baseline: sigmoid gates, ReLU units.
_base_ = [
    '../../_base_/recipes/cifar100-lt_500e.py',
    '../../_base_/models/seresnet.py'
]
attention_cfg = dict(reduction=4, **_base_.seresnet.attention_cfg)
model = dict(
    backbone=dict(
        act_cfg=_base_.seresnet.act_cfg, attention_cfg=attention_cfg))
