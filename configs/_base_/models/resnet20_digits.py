# ResNet-20 of the CIFAR family for 10 digits; APA* gates and AGLU units
# where a config says nothing else.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='apa_mm.APAResNetCIFAR', depth=20),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='apa_mm.LongTailLinearClsHead',
        num_classes=10,
        in_channels=64,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0)))
