# The ranges that the authors' Swin file starts from, where the paper says
# (1, 1.3) and (0, 1). Their config put them inside init_cfg, where nothing
# reads them, and trained GELU: that is MMPretrain's own config.
_base_ = './swin-tiny_aglu_16xb64_in1k.py'
ffn_cfgs = dict(act_cfg=dict(kappa_init=(0., 1.), lambd_init=(0.1, 1.)))
model = dict(
    backbone=dict(stage_cfgs=dict(block_cfgs=dict(ffn_cfgs=ffn_cfgs))))
