# LVIS v1 (Table 5): repeat-factor sampling, multi-scale, 24 epochs, 8 GPUs x 2
# images, softmax classifier on a plain ResNet-50.
_base_ = [
    'mmdet::lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py',
    '../runtime/safe_hooks.py'
]
# Before weights are read: torch refuses mmengine's checkpoints otherwise.
custom_imports = dict(imports=['apa_mm'], allow_failed_imports=False)
default_hooks = _base_.safe_hooks
num_classes = 1203
model = dict(
    roi_head=dict(
        # Exact NMS and mask logits of the used class only; the same results
        # as mmdet's Shared2FCBBoxHead and FCNMaskHead.
        bbox_head=dict(type='apa_mm.LargeVocabBBoxHead'),
        mask_head=dict(type='apa_mm.ClasswiseFCNMaskHead')))

# Annotations parsed once, then mapped by all ranks and later starts.
dataset_type = 'apa_mm.LVISV1Dataset'
train_dataloader = dict(dataset=dict(dataset=dict(type=dataset_type)))
val_dataloader = dict(dataset=dict(type=dataset_type))
test_dataloader = val_dataloader

# mmdet's LVISMetric needs a package that fails on numpy >= 1.24.
val_evaluator = dict(type='apa_mm.LVISMetric')
test_evaluator = val_evaluator

max_epochs = 24
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', end=max_epochs, milestones=[16, 22], gamma=0.1)
]

# kappa and lambda carry no weight decay, nor do biases (Table 8).
optim_wrapper = dict(
    constructor='apa_mm.APAOptimWrapperConstructor',
    paramwise_cfg=dict(bias_decay_mult=0.))
custom_hooks = [dict(type='apa_mm.CheckpointCheckHook')]
