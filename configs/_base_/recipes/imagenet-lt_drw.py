# ImageNet-LT, deferred re-weighting: class weights from epoch 161 of 200
# (Table 4c).
_base_ = './imagenet-lt_200e.py'
model = dict(
    head=dict(
        logit_offset=None,
        loss=dict(type='apa_mm.DeferredReweightedLoss', num_classes=1000)))
custom_hooks = [
    dict(type='apa_mm.ClassFrequencyHook'),
    dict(type='apa_mm.DeferredReweightingHook', start_epoch=160)
]
