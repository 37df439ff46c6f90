# The authors' command. Each setting is one difference from the paper's.
_base_ = './apa-seresnet32_1xb512-mixup-500e_cifar100-lt-ir100.py'
model = dict(
    backbone=dict(
        # kappa of the units from (0.8, 1.2); Eq. 8 as printed for lambda.
        act_cfg=dict(
            type='apa_mm.AGLU', kappa_init=(0.8, 1.2), lambda_grad='paper')),
    # A fixed scale of 16; ln((N - n) / n) at the end of every epoch.
    head=dict(learnable_scale=False, logit_offset=dict(type='rel')))
# Biases decay.
optim_wrapper = dict(paramwise_cfg=dict(bias_decay_mult=1.))
