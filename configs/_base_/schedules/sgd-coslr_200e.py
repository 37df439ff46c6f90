# What the paper's classification recipes share (Table 8): SGD, three epochs of
# linear warm-up, cosine to zero. Factors of the learning rate change once per
# epoch: 0.01, 0.34, 0.67, 1, then the cosine over the epochs that are left.
_base_ = '../runtime/mmpretrain.py'
train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=1)
val_cfg = dict()
test_cfg = dict()

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.2, momentum=0.9, weight_decay=1e-4),
    # kappa and lambda carry no weight decay, nor do biases, those of norms too;
    # the norms' weights decay.
    constructor='apa_mm.APAOptimWrapperConstructor',
    paramwise_cfg=dict(bias_decay_mult=0.))
param_scheduler = [
    # mmengine reaches the full rate in the epoch end - 1.
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=4),
    # Its end is max_epochs.
    dict(type='CosineAnnealingLR', eta_min=0., by_epoch=True, begin=3)
]
auto_scale_lr = dict(base_batch_size=256)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
