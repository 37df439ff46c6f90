# The authors' command where it differs from the paper: their units; LayerNorm,
# dropout and kappa from (-1, 0), all defaults, in the gates; decaying biases.
_base_ = [
    '../../_base_/recipes/inat18_500e.py', '../../_base_/models/released.py'
]
model = dict(backbone=dict(act_cfg=_base_.released_unit))
optim_wrapper = dict(paramwise_cfg=dict(bias_decay_mult=1.))
