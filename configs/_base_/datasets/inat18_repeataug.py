# iNaturalist 2018: lists iNaturalist18_{train,val}.txt.
_base_ = './imagenet-lt.py'
dataset_type = 'apa_mm.INaturalist2018'
data_root = 'data/inat18/'
train_list = 'iNaturalist18_train.txt'
data_preprocessor = dict(num_classes=8142)
bgr_mean = [103.53, 116.28, 123.675]

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=192, backend='pillow'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='NumpyToPIL', to_rgb=True),
    # Two operations of magnitude 9 of 31, gaps black.
    dict(type='torchvision/RandAugment', num_ops=2, magnitude=9),
    dict(type='PILToNumpy', to_bgr=True),
    dict(
        type='RandomErasing',
        erase_prob=0.1,
        max_area_ratio=1 / 3,
        fill_color=bgr_mean),
    dict(type='PackInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=232, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs')
]

train_dataloader = dict(
    batch_size=256,
    # An epoch is cut to a multiple of 256 images, 437,504.
    sampler=dict(type='apa_mm.RepeatAugSampler', num_repeats=4),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file=train_list,
        num_images=437513,
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=256,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='iNaturalist18_val.txt',
        train_ann_file=train_list,
        num_images=24426,
        pipeline=test_pipeline))
test_dataloader = val_dataloader
