# The demo's GOL, negatives dropped only where a class was not looked for.
_base_ = './mask-rcnn_apa-seresnet18_fpn_gol_digits-lvis.py'
model = dict(
    roi_head=dict(
        type='apa_mm.FederatedRoIHead',
        bbox_head=dict(loss_cls=dict(unverified_only=True))))
train_dataloader = dict(
    dataset=dict(dataset=dict(type='apa_mm.FederatedLVISDataset')))
