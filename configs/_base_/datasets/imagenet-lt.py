# ImageNet-LT: images of ImageNet-1K, lists ImageNet_LT_{train,test}.txt.
# Pipelines of the parent with torchvision's bilinear resizing and AutoAugment
# (ImageNet's policy, gaps black).
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_pil_resize_autoaug.py'
dataset_type = 'apa_mm.ImageNetLT'
data_root = 'data/imagenet/'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='NumpyToPIL', to_rgb=True),
    dict(type='torchvision/AutoAugment', interpolation='bilinear'),
    dict(type='PILToNumpy', to_bgr=True),
    dict(type='PackInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs')
]

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type=dataset_type,
        data_root=data_root,
        ann_file='ImageNet_LT_train.txt',
        num_images=115846,
        pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type=dataset_type,
        data_root=data_root,
        ann_file='ImageNet_LT_test.txt',
        # Its counts tell many-, medium- and few-shot classes apart.
        train_ann_file='ImageNet_LT_train.txt',
        num_images=50000,
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = [
    dict(type='Accuracy', topk=(1, 5)),
    dict(type='apa_mm.ShotAccuracy'),
    dict(type='apa_mm.CalibrationError')
]
test_evaluator = val_evaluator
