# CIFAR100-LT: 10,847 images, 500 of class 0 down to 5 of class 99, from the
# python version as published: data/cifar100/cifar-100-python/.
dataset_type = 'apa_mm.CIFAR100LT'
data_root = 'data/cifar100/'
imbalance_factor = 100
# Of CIFAR-10, as in the authors' code; the images are RGB already.
data_preprocessor = dict(
    num_classes=100,
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=False)

train_pipeline = [
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='NumpyToPIL'),
    dict(type='apa_mm.CIFARAutoAugment', interpolation='bilinear'),
    dict(type='PILToNumpy'),
    dict(type='Cutout', shape=16, pad_val=0, prob=1.0),
    dict(type='PackInputs')
]
test_pipeline = [dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=512,
    num_workers=5,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='train',
        imbalance_factor=imbalance_factor,
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=512,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='test',
        imbalance_factor=imbalance_factor,
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = [
    dict(type='Accuracy', topk=(1, 5)),
    dict(type='apa_mm.ShotAccuracy'),
    dict(type='apa_mm.CalibrationError')
]
test_evaluator = val_evaluator
