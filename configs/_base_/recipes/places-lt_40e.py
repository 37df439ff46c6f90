# Places-LT (Table 8): only stage 4 and the classifier of a ResNet-152 are
# trained, from an ImageNet-1K checkpoint with its kappa and lambda.
_base_ = [
    '../models/resnet50_cls.py', '../datasets/places-lt.py',
    '../schedules/sgd-coslr_200e.py'
]
num_classes = 365
model = dict(
    backbone=dict(
        depth=152,
        frozen_stages=3,
        init_cfg=dict(type='Pretrained', prefix='backbone.')),
    head=dict(
        type='apa_mm.CosineClsHead',
        num_classes=num_classes,
        learnable_scale=True,
        logit_offset=dict(type='raw'),
        loss=dict(
            type='LabelSmoothLoss',
            label_smooth_val=0.1,
            num_classes=num_classes)),
    train_cfg=dict(augments=[
        dict(type='Mixup', alpha=0.2),
        dict(type='CutMix', alpha=1.0)
    ]))
train_cfg = dict(max_epochs=40)
optim_wrapper = dict(optimizer=dict(lr=0.1, weight_decay=5e-5))
custom_hooks = [dict(type='apa_mm.ClassFrequencyHook')]
