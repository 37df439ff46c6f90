# The authors' command, as far as it is meant: Eq. 8 as printed for lambda, a
# scale that stays at 25, the offset ln((N - n) / n), decaying biases. Not
# repeated: kappa and lambda of stage 4 drawn anew, counting frozen BatchNorm.
_base_ = './apa-seresnet152_4xb64-mixup-cutmix-40e_places-lt.py'
model = dict(
    backbone=dict(act_cfg=dict(type='apa_mm.AGLU', lambda_grad='paper')),
    head=dict(
        scale=25., learnable_scale=False, logit_offset=dict(type='rel')))
optim_wrapper = dict(paramwise_cfg=dict(bias_decay_mult=1.))
