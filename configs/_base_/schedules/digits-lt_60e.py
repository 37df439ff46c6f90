# SGD for 60 epochs of 6 iterations, tested once at the end.
_base_ = '../runtime/mmpretrain.py'
max_epochs = 60
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict()
test_cfg = dict()

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4),
    # kappa and lambda carry no weight decay.
    constructor='apa_mm.APAOptimWrapperConstructor')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=18),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=18, end=360)
]
default_hooks = dict(
    logger=dict(interval=6),
    checkpoint=dict(interval=max_epochs, max_keep_ckpts=1))
randomness = dict(seed=0)
