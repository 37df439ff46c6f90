# ImageNet-LT, cRT (Table 4c): a new classifier on a frozen backbone,
# class-balanced sampling, ten epochs. The checkpoint is one of the config
# with softmax.
_base_ = './imagenet-lt_softmax.py'
model = dict(
    backbone=dict(
        frozen_stages=4,
        init_cfg=dict(type='Pretrained', prefix='backbone.')))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='apa_mm.ClassBalancedSampler'))
train_cfg = dict(max_epochs=10)
