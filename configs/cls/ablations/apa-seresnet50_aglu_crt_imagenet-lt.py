# CRT on APA* gates and AGLU units.
_base_ = '../../_base_/recipes/imagenet-lt_crt.py'
init_cfg = dict(checkpoint='checkpoints/apa-seresnet50_imagenet-lt.pth')
model = dict(backbone=dict(init_cfg=init_cfg))
