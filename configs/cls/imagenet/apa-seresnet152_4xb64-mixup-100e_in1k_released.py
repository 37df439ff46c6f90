# The authors' command: their units and ranges of kappa, decaying biases.
_base_ = [
    './apa-seresnet152_4xb64-mixup-100e_in1k.py',
    '../../_base_/models/released.py'
]
gate_cfg = dict(kappa_init=(-1., 0.))
model = dict(
    backbone=dict(
        act_cfg=_base_.released_unit, attention_cfg=dict(gate_cfg=gate_cfg)))
optim_wrapper = dict(paramwise_cfg=dict(bias_decay_mult=1.))
