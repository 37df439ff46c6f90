# The authors' command: their units, AMP, decaying biases, ln((N - n) / n).
_base_ = [
    './apa-seresnet50_4xb64-mixup-200e_imagenet-lt.py',
    '../../_base_/models/released.py'
]
model = dict(
    backbone=dict(act_cfg=_base_.released_unit),
    head=dict(logit_offset=dict(type='rel')))
optim_wrapper = dict(
    type='AmpOptimWrapper', paramwise_cfg=dict(bias_decay_mult=1.))
