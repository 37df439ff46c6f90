# The authors' command. Each setting is one difference from the paper's.
_base_ = './apa-seresnet152_4xb64-mixup-100e_in1k.py'
model = dict(
    backbone=dict(
        # kappa of the units from (0.8, 1.2); Eq. 8 as printed for lambda.
        act_cfg=dict(
            type='apa_mm.AGLU', kappa_init=(0.8, 1.2), lambda_grad='paper'),
        # kappa of the gates from (-1, 0).
        attention_cfg=dict(gate_cfg=dict(kappa_init=(-1., 0.)))))
# Biases decay.
optim_wrapper = dict(paramwise_cfg=dict(bias_decay_mult=1.))
