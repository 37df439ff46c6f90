# The authors' form: N / n from the first epoch, not divided by the weights'
# mean, so that with mixup the loss is about 1000 times as large.
_base_ = './apa-seresnet50_aglu_drw_imagenet-lt.py'
model = dict(head=dict(loss=dict(weighting='inverse', normalize=False)))
custom_hooks = [
    dict(type='apa_mm.ClassFrequencyHook'),
    dict(type='apa_mm.DeferredReweightingHook', start_epoch=0)
]
