# AGLU in every FFN of ViT-B/16, MMPretrain's recipe from scratch (300 epochs).
_base_ = 'mmpretrain::vision_transformer/vit-base-p16_32xb128-mae_in1k.py'
# Before weights are read: torch refuses mmengine's checkpoints otherwise.
custom_imports = dict(imports=['apa_mm'], allow_failed_imports=False)
model = dict(
    backbone=dict(layer_cfgs=dict(act_cfg=dict(type='apa_mm.AGLU'))))
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(kappa=dict(decay_mult=0.),
                         lambd=dict(decay_mult=0.))))
