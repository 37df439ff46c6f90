# ResNet-50 for 1000 classes. Gates and units are APAResNet's own, APA* and
# AGLU, where a recipe says nothing else.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='apa_mm.APAResNet', depth=50, out_indices=(3, )),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=2048,
        # The layer's own initialisation, as in the authors' code.
        init_cfg=None,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5)),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.2)]))
