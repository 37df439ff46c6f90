# APA* gates and AGLU units, cosine classifier with scale 16, cross entropy;
# the prior of the training set is divided out at test time (PC-softmax).
_base_ = [
    '../../_base_/models/apa-seresnet50_cls.py',
    '../../_base_/datasets/imagenet-lt.py',
    '../../_base_/schedules/sgd-coslr_200e.py'
]
model = dict(
    head=dict(type='apa_mm.CosineClsHead', logit_offset=dict(type='raw')))
custom_hooks = [dict(type='apa_mm.ClassFrequencyHook')]
