# Digits-LVIS with repeat-factor sampling; tools/make_digits_lvis.py makes it.
# No flips: a mirrored digit is another shape or none.
dataset_type = 'LVISV1Dataset'
data_root = 'data/digits_lvis/'
metainfo = dict(
    classes=tuple(f'{colour}_{digit}' for digit in range(10)
                  for colour in ('red', 'green', 'blue')))
image_scale = (128, 128)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='LoadAnnotations', with_bbox=True, with_mask=True,
        poly2mask=False),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor'))
]

# No worker processes: loading is a few per cent of a step on the CPU, and
# workers would take cores from it.
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type='ClassBalancedDataset',
        # LVIS uses 1e-3, the frequency below which 100 of 100,000 images show
        # a class; 0.1 is that border for a thousand images.
        oversample_thr=0.1,
        dataset=dict(
            type=dataset_type,
            data_root=data_root,
            metainfo=metainfo,
            ann_file='annotations/digits_lvis_train.json',
            data_prefix=dict(img=''),
            filter_cfg=dict(filter_empty_gt=True),
            pipeline=train_pipeline)))
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/digits_lvis_val.json',
        data_prefix=dict(img=''),
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(
    type='apa_mm.LVISMetric',
    ann_file=data_root + 'annotations/digits_lvis_val.json',
    metric=['bbox', 'segm'])
test_evaluator = val_evaluator
