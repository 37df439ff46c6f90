# Digits-LT: 371 training images, 134 of digit 0 down to 2 of digit 9, and 400
# balanced test images. They come with scikit-learn; nothing is downloaded.
dataset_type = 'apa_mm.DigitsLT'
imbalance_factor = 50
image_size = 8

data_preprocessor = dict(
    num_classes=10, mean=[127.5] * 3, std=[127.5] * 3, to_rgb=False)

# No flips: a mirrored digit is another shape or none.
train_pipeline = [
    dict(type='RandomCrop', crop_size=image_size, padding=1),
    dict(type='PackInputs')
]
test_pipeline = [dict(type='PackInputs')]

# No worker processes, the images are in memory; MMPretrain's train.py would
# have them persist.
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        split='train',
        imbalance_factor=imbalance_factor,
        image_size=image_size,
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=200,
    num_workers=0,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        split='test',
        imbalance_factor=imbalance_factor,
        image_size=image_size,
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = [
    dict(type='Accuracy', topk=(1, )),
    dict(type='apa_mm.ShotAccuracy'),
    dict(type='apa_mm.CalibrationError')
]
test_evaluator = val_evaluator
