# LVIS v1 with GOL on our ResNets: masks are cut at 0.4, as the paper's AGLU
# code does, for its SE baseline too.
_base_ = './lvis_mask-rcnn_gol.py'
model = dict(
    backbone=dict(type='apa_mm.APAResNet'),
    test_cfg=dict(rcnn=dict(mask_thr_binary=0.4)))
