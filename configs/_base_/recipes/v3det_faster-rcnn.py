# V3Det (Table 6b), Faster R-CNN with the wrapped Cauchy classifier: mmdet's
# AdamW recipe, 8 GPUs x 4 images, class-agnostic boxes, softmax loss.
_base_ = [
    'mmdet::v3det/'
    'faster_rcnn_r50_fpn_8x4_sample1e-3_mstrain_v3det_2x.py',
    '../runtime/safe_hooks.py'
]
# Before weights are read: torch refuses mmengine's checkpoints otherwise.
custom_imports = dict(imports=['apa_mm'], allow_failed_imports=False)
default_hooks = _base_.safe_hooks
model = dict(
    roi_head=dict(
        bbox_head=dict(
            type='apa_mm.LargeVocabBBoxHead',
            cls_predictor_cfg=dict(
                _delete_=True, type='apa_mm.WrappedCauchyLinear', scale=300.),
            loss_cls=dict(
                _delete_=True, type='CrossEntropyLoss', loss_weight=1.0))))
# Annotations parsed once, then mapped by all ranks and later starts.
dataset_type = 'apa_mm.V3DetDataset'
train_dataloader = dict(dataset=dict(dataset=dict(type=dataset_type)))
val_dataloader = dict(dataset=dict(type=dataset_type))
test_dataloader = val_dataloader
val_evaluator = dict(type='apa_mm.CocoMetric')
test_evaluator = val_evaluator
# kappa and lambda carry no weight decay (Table 8): AdamW's 0.1 alone would
# shrink them by a factor of 0.4 over the run.
optim_wrapper = dict(constructor='apa_mm.APAOptimWrapperConstructor')
custom_hooks = [dict(type='apa_mm.CheckpointCheckHook')]
