# The R50 recipe with the mask head of the authors' R101: temperature fixed at
# 20, transposed convolution, which has a CPU kernel.
_base_ = '../../_base_/recipes/lvis_mask-rcnn_gol_ours.py'
init_cfg = dict(checkpoint='checkpoints/apa-seresnet50_in1k.pth')
model = dict(backbone=dict(init_cfg=init_cfg))
