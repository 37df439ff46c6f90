# AGLU in every FFN of Swin-T, MMPretrain's recipe (300 epochs).
_base_ = 'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py'
# Before weights are read: torch refuses mmengine's checkpoints otherwise.
custom_imports = dict(imports=['apa_mm'], allow_failed_imports=False)
ffn_cfgs = dict(act_cfg=dict(type='apa_mm.AGLU'))
model = dict(
    backbone=dict(stage_cfgs=dict(block_cfgs=dict(ffn_cfgs=ffn_cfgs))))
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(kappa=dict(decay_mult=0.),
                         lambd=dict(decay_mult=0.))))
