# The recipe of Table 5; negatives are dropped only where nobody looked.
_base_ = './mask-rcnn_apa-seresnet50_fpn_gol_sample1e-3-ms-2x_lvis-v1.py'
model = dict(
    roi_head=dict(
        type='apa_mm.FederatedRoIHead',
        bbox_head=dict(loss_cls=dict(unverified_only=True))))
train_dataloader = dict(
    dataset=dict(dataset=dict(type='apa_mm.FederatedLVISDataset')))
