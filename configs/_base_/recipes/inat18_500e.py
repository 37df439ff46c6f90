# iNaturalist 2018 (Table 8): cosine classifier with scale 16 and no
# correction for the prior.
_base_ = [
    '../models/resnet50_cls.py', '../datasets/inat18_repeataug.py',
    '../schedules/sgd-coslr_200e.py'
]
num_classes = 8142
model = dict(
    head=dict(
        type='apa_mm.CosineClsHead',
        num_classes=num_classes,
        loss=dict(
            type='LabelSmoothLoss',
            label_smooth_val=0.1,
            num_classes=num_classes)),
    train_cfg=dict(augments=[
        dict(type='Mixup', alpha=0.2),
        dict(type='CutMix', alpha=1.0)
    ]))
train_cfg = dict(max_epochs=500)
optim_wrapper = dict(
    optimizer=dict(lr=0.5), paramwise_cfg=dict(norm_decay_mult=0.))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=6),
    dict(type='CosineAnnealingLR', eta_min=0., by_epoch=True, begin=5)
]
auto_scale_lr = dict(base_batch_size=1024)
