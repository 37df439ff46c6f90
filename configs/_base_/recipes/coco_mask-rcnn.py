# COCO (Table 6a): mmdet's 2x recipe with our evaluation.
_base_ = [
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_2x_coco.py',
    '../runtime/safe_hooks.py'
]
# Before weights are read: torch refuses mmengine's checkpoints otherwise.
custom_imports = dict(imports=['apa_mm'], allow_failed_imports=False)
default_hooks = _base_.safe_hooks
# Annotations parsed once, then mapped by all ranks and later starts.
dataset_type = 'apa_mm.CocoDataset'
train_dataloader = dict(dataset=dict(type=dataset_type))
val_dataloader = dict(dataset=dict(type=dataset_type))
test_dataloader = val_dataloader
val_evaluator = dict(type='apa_mm.CocoMetric')
test_evaluator = val_evaluator
# kappa and lambda carry no weight decay (Table 8).
optim_wrapper = dict(constructor='apa_mm.APAOptimWrapperConstructor')
custom_hooks = [dict(type='apa_mm.CheckpointCheckHook')]
