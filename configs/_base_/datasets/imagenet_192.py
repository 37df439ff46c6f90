# ImageNet-1K, trained on crops of 192 pixels and tested on 224.
# Pipelines of the parent with torchvision's bilinear resizing and AutoAugment
# (ImageNet's policy, gaps black).
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_pil_resize_autoaug.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=192, backend='pillow'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='NumpyToPIL', to_rgb=True),
    dict(type='torchvision/AutoAugment', interpolation='bilinear'),
    dict(type='PILToNumpy', to_bgr=True),
    dict(type='PackInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=232, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs')
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = [
    dict(type='Accuracy', topk=(1, 5)),
    dict(type='apa_mm.CalibrationError')
]
test_evaluator = val_evaluator
