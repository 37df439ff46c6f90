# V3Det (Table 6b), Cascade R-CNN with wrapped Cauchy classifiers.
_base_ = [
    'mmdet::v3det/'
    'cascade_rcnn_r50_fpn_8x4_sample1e-3_mstrain_v3det_2x.py',
    '../runtime/safe_hooks.py'
]
# Before weights are read: torch refuses mmengine's checkpoints otherwise.
custom_imports = dict(imports=['apa_mm'], allow_failed_imports=False)
default_hooks = _base_.safe_hooks
# A list cannot be inherited item by item: the three heads in full.
model = dict(
    roi_head=dict(bbox_head=[
        dict(
            type='apa_mm.LargeVocabBBoxHead',
            in_channels=256,
            fc_out_channels=1024,
            roi_feat_size=7,
            num_classes=13204,
            reg_class_agnostic=True,
            bbox_coder=dict(
                type='DeltaXYWHBBoxCoder',
                target_means=[0., 0., 0., 0.],
                target_stds=[std, std, 2 * std, 2 * std]),
            cls_predictor_cfg=dict(
                type='apa_mm.WrappedCauchyLinear', scale=300.),
            loss_cls=dict(type='CrossEntropyLoss', loss_weight=1.0),
            loss_bbox=dict(type='L1Loss', loss_weight=1.0))
        for std in (0.1, 0.05, 0.033)
    ]))
# Annotations parsed once, then mapped by all ranks and later starts.
dataset_type = 'apa_mm.V3DetDataset'
train_dataloader = dict(dataset=dict(dataset=dict(type=dataset_type)))
val_dataloader = dict(dataset=dict(type=dataset_type))
test_dataloader = val_dataloader
val_evaluator = dict(type='apa_mm.CocoMetric')
test_evaluator = val_evaluator
# kappa and lambda carry no weight decay (Table 8).
optim_wrapper = dict(constructor='apa_mm.APAOptimWrapperConstructor')
custom_hooks = [dict(type='apa_mm.CheckpointCheckHook')]
