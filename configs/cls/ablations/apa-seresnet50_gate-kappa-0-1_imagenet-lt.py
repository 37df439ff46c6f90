# kappa of the gates from (0, 1) (Table 12; the recipe: (-1, 0)).
_base_ = '../imagenet_lt/apa-seresnet50_4xb64-mixup-200e_imagenet-lt.py'
model = dict(
    backbone=dict(
        attention_cfg=dict(
            type='apa_mm.ChannelAttention',
            gate_cfg=dict(type='apa_mm.APA', kappa_init=(0., 1.)))))
