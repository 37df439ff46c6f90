# The authors' command. Each setting is one difference from the paper's.
_base_ = './apa-seresnet50_4xb64-mixup-200e_imagenet-lt.py'
model = dict(
    backbone=dict(
        # kappa of the units from (0.8, 1.2); Eq. 8 as printed for lambda.
        act_cfg=dict(
            type='apa_mm.AGLU', kappa_init=(0.8, 1.2), lambda_grad='paper')),
    # ln((N - n) / n) at the end of every epoch; ln(N / n) in a later script.
    head=dict(logit_offset=dict(type='rel')))
# Mixed precision, and biases decay.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    paramwise_cfg=dict(bias_decay_mult=1.))
