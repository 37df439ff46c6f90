# The authors' command. Each setting is one difference from the paper's.
_base_ = './apa-seresnet50_4xb256-repeataug-500e_inat18.py'
model = dict(
    backbone=dict(
        # kappa of the units from (0.8, 1.2); Eq. 8 as printed for lambda.
        act_cfg=dict(
            type='apa_mm.AGLU', kappa_init=(0.8, 1.2), lambda_grad='paper'),
        # LayerNorm, dropout and kappa from (-1, 0) in the gates.
        attention_cfg=dict(
            gate_cfg=dict(kappa_init=(-1., 0.)),
            norm_cfg=dict(_delete_=True, type='LN'),
            dropout=0.1)))
# Biases decay.
optim_wrapper = dict(paramwise_cfg=dict(bias_decay_mult=1.))
