"""Tiny data sets and configs that train in a second, for several tests."""
import json
from pathlib import Path
from typing import Sequence

import numpy as np
from PIL import Image

CLASSES = ('cube', 'ball', 'ring')


def coco_annotations(num_images: int = 4, size: int = 64) -> dict:
    """Return a valid LVIS-style annotation dict with one box per image.

    Its keys serve CocoDataset and LVISV1Dataset alike.
    """
    box = [8.0, 8.0, 40.0, 40.0]
    corners = [8.0, 8.0, 48.0, 8.0, 48.0, 48.0, 8.0, 48.0]
    return dict(
        info=dict(description='tiny'),
        licenses=[],
        images=[
            dict(
                id=i + 1,
                file_name=f'{i}.png',
                coco_url=f'http://images.cocodataset.org/{i}.png',
                height=size,
                width=size,
                neg_category_ids=[],
                not_exhaustive_category_ids=[]) for i in range(num_images)
        ],
        annotations=[
            dict(
                id=i + 1,
                image_id=i + 1,
                category_id=i % len(CLASSES) + 1,
                bbox=box,
                area=1600.0,
                iscrowd=0,
                segmentation=[corners]) for i in range(num_images)
        ],
        categories=[
            dict(
                id=i + 1,
                name=name,
                frequency='rcf'[i % 3],
                image_count=1,
                instance_count=1) for i, name in enumerate(CLASSES)
        ])


def write_images(folder: Path, names: Sequence[str], size: int = 64) -> None:
    """Write one noise image for every name."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


def write_detection_data(root: Path, num_images: int = 4) -> Path:
    """Write images and ``ann.json`` below ``root``; return ``root``."""
    annotations = coco_annotations(num_images)
    write_images(root / 'images',
                 [image['file_name'] for image in annotations['images']])
    (root / 'ann.json').write_text(json.dumps(annotations))
    return root


def write_classification_data(root: Path) -> Path:
    """Write one folder of two images per class; return ``root``."""
    for name in CLASSES:
        write_images(root / name, ['0.png', '1.png'], size=32)
    return root


_RUNTIME = """
default_scope = '{scope}'
randomness = dict(seed=0)
env_cfg = dict(
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=1),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='{hook}'))
visualizer = dict(
    type='{visualizer}', vis_backends=[dict(type='LocalVisBackend')])
train_cfg = dict(by_epoch=True, max_epochs=1, val_interval=10)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.001, momentum=0.9),
    clip_grad=dict(max_norm=10))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=2)]
auto_scale_lr = dict(enable=False, base_batch_size=16)
"""

_DETECTION = """
classes = {classes}
image_norm = dict(
    type='DetDataPreprocessor', mean=[128.0] * 3, std=[64.0] * 3,
    pad_size_divisor=32)
box_coder = dict(
    type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4,
    target_stds=[1.0] * 4)
assigner = dict(
    type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5,
    min_pos_iou=0.3)
sampler = dict(
    type='RandomSampler', num=16, pos_fraction=0.5, add_gt_as_proposals=True)
proposals = dict(
    nms_pre=20, max_per_img=20, nms=dict(type='nms', iou_threshold=0.7),
    min_bbox_size=0)
model = dict(
    type='FasterRCNN',
    data_preprocessor=image_norm,
    backbone=dict(type='apa_mm.APAResNet', depth=18),
    neck=dict(
        type='FPN', in_channels=[64, 128, 256, 512], out_channels=16,
        num_outs=4),
    rpn_head=dict(
        type='RPNHead', in_channels=16, feat_channels=16,
        anchor_generator=dict(
            type='AnchorGenerator', scales=[8], ratios=[1.0],
            strides=[4, 8, 16, 32]),
        bbox_coder=box_coder,
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True),
        loss_bbox=dict(type='L1Loss')),
    roi_head=dict(
        type='StandardRoIHead',
        bbox_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(
                type='RoIAlign', output_size=7, sampling_ratio=0),
            out_channels=16, featmap_strides=[4, 8, 16, 32]),
        bbox_head=dict(
            type='Shared2FCBBoxHead', in_channels=16, fc_out_channels=16,
            roi_feat_size=7, num_classes={num_classes},
            bbox_coder=box_coder,
            loss_cls=dict(type='CrossEntropyLoss'),
            loss_bbox=dict(type='L1Loss'))),
    train_cfg=dict(
        rpn=dict(
            assigner=assigner, sampler=sampler, allowed_border=-1,
            pos_weight=-1),
        rpn_proposal=proposals,
        rcnn=dict(assigner=assigner, sampler=sampler, pos_weight=-1)),
    test_cfg=dict(
        rpn=proposals,
        rcnn=dict(
            score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=5)))
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor'))]
train_dataloader = dict(
    batch_size=2, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='RepeatDataset', times=1,
        dataset=dict(
            type='CocoDataset', data_root='{root}/', ann_file='ann.json',
            data_prefix=dict(img='images/'),
            metainfo=dict(classes=classes), pipeline=test_pipeline)))
val_dataloader = dict(
    batch_size=2, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset', data_root='{root}/', ann_file='ann.json',
        data_prefix=dict(img='images/'), test_mode=True,
        metainfo=dict(classes=classes), pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoMetric', ann_file='{root}/ann.json', metric='bbox')
test_evaluator = val_evaluator
"""

_CLASSIFICATION = """
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor', num_classes=3, mean=[128.0] * 3,
        std=[64.0] * 3),
    backbone=dict(
        type='apa_mm.APAResNet', depth=18, out_indices=(3, )),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', in_channels=512, num_classes=3,
        loss=dict(type='CrossEntropyLoss')))
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=3, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset', data_root='{root}', pipeline=test_pipeline))
val_dataloader = dict(
    batch_size=3, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset', data_root='{root}', pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, ))
test_evaluator = val_evaluator
"""


def write_detection_config(path: Path,
                           data: Path,
                           num_classes: int = 3,
                           classes: Sequence[str] = CLASSES) -> Path:
    """Write a Faster R-CNN config with an 18-layer APA* backbone."""
    text = _DETECTION.format(
        root=data, num_classes=num_classes, classes=tuple(classes))
    path.write_text(
        _RUNTIME.format(
            scope='mmdet',
            hook='DetVisualizationHook',
            visualizer='DetLocalVisualizer') + text)
    return path


def write_classification_config(path: Path, data: Path) -> Path:
    """Write an image classification config with the same backbone."""
    path.write_text(
        _RUNTIME.format(
            scope='mmpretrain',
            hook='VisualizationHook',
            visualizer='UniversalVisualizer') +
        _CLASSIFICATION.format(root=data))
    return path
