# cRT (Table 4c): a new classifier on a frozen backbone, class-balanced
# sampling, ten epochs. Stage one is the config with softmax.
_base_ = './apa-seresnet50_softmax_imagenet-lt.py'
init_cfg = dict(
    type='Pretrained',
    checkpoint='checkpoints/apa-seresnet50_imagenet-lt.pth',
    prefix='backbone.')
model = dict(backbone=dict(frozen_stages=4, init_cfg=init_cfg))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='apa_mm.ClassBalancedSampler'))
train_cfg = dict(max_epochs=10)
