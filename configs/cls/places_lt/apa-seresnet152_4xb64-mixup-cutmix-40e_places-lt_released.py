# The authors' command, as far as it is meant: each setting is one difference
# from the paper's. Not repeated are two accidents of their code, which draws
# kappa and lambda of stage 4 anew and lets BatchNorm of the frozen stages go
# on counting.
_base_ = './apa-seresnet152_4xb64-mixup-cutmix-40e_places-lt.py'
model = dict(
    # Eq. 8 as printed for lambda.
    backbone=dict(act_cfg=dict(type='apa_mm.AGLU', lambda_grad='paper')),
    # The scale stays at 25; ln((N - n) / n) at the end of every epoch.
    head=dict(
        scale=25., learnable_scale=False, logit_offset=dict(type='rel')))
# Biases decay.
optim_wrapper = dict(paramwise_cfg=dict(bias_decay_mult=1.))
