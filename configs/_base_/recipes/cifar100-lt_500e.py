# CIFAR100-LT (Table 8): ResNet-32, cosine classifier with a learned scale; the
# prior of the training set is divided out at test time (PC-softmax).
_base_ = [
    '../datasets/cifar100-lt_ir100.py', '../schedules/sgd-coslr_200e.py'
]
model = dict(
    type='ImageClassifier',
    backbone=dict(type='apa_mm.APAResNetCIFAR', depth=32),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='apa_mm.CosineClsHead',
        num_classes=100,
        in_channels=64,
        learnable_scale=True,
        logit_offset=dict(type='raw'),
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5)),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.2)]))
train_cfg = dict(max_epochs=500)
optim_wrapper = dict(optimizer=dict(weight_decay=1e-3))
custom_hooks = [dict(type='apa_mm.ClassFrequencyHook')]
auto_scale_lr = dict(base_batch_size=512)
