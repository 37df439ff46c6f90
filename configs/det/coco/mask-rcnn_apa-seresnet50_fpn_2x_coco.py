# APA* gates and AGLU units (Table 6a). kappa and lambda come from the ImageNet
# checkpoint, as the paper says; the released config leaves them random.
_base_ = '../../_base_/recipes/coco_mask-rcnn.py'
init_cfg = dict(checkpoint='checkpoints/apa-seresnet50_in1k.pth')
model = dict(backbone=dict(type='apa_mm.APAResNet', init_cfg=init_cfg))
