# ImageNet-LT where the path of Table 14 starts: a plain ResNet-50, linear
# classifier, cross entropy, crops and flips alone, 100 epochs. The table ticks
# weight decay later; what it is before is not printed: 5e-4 is assumed.
_base_ = './imagenet-lt_softmax.py'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs')
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
model = dict(
    backbone=dict(
        attention_cfg=None, act_cfg=dict(type='ReLU', inplace=True)),
    head=dict(type='apa_mm.LongTailLinearClsHead'),
    train_cfg=None)
train_cfg = dict(max_epochs=100)
optim_wrapper = dict(optimizer=dict(weight_decay=5e-4))
