# APA* gates and AGLU units, sigmoids over sampled classes.
_base_ = '../../_base_/recipes/lvis_mask-rcnn_sampled-sigmoid.py'
init_cfg = dict(checkpoint='checkpoints/apa-seresnet50_in1k.pth')
model = dict(backbone=dict(type='apa_mm.APAResNet', init_cfg=init_cfg))
