# The authors' command where it differs from the paper: their units, a fixed
# scale of 16, the offset ln((N - n) / n), decaying biases.
_base_ = [
    './apa-seresnet32_1xb512-mixup-500e_cifar100-lt-ir100.py',
    '../../_base_/models/released.py'
]
model = dict(
    backbone=dict(act_cfg=_base_.released_unit),
    head=dict(learnable_scale=False, logit_offset=dict(type='rel')))
optim_wrapper = dict(paramwise_cfg=dict(bias_decay_mult=1.))
