# Digits-LVIS with repeat-factor sampling; tools/make_digits_lvis.py makes it.
# No flips: a mirrored digit is another shape or none.
data_root = 'data/digits_lvis/'
metainfo = dict(
    classes=tuple(f'{colour}_{digit}' for digit in range(10)
                  for colour in ('red', 'green', 'blue')))
image_scale = (128, 128)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_mask=True, poly2mask=False),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    dict(type='PackDetInputs')
]

# No worker processes: they would take cores from training.
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type='ClassBalancedDataset',
        oversample_thr=0.1,  # LVIS's 1e-3 for a hundredth of its images
        dataset=dict(
            type='apa_mm.LVISV1Dataset',
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
        type='apa_mm.LVISV1Dataset',
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
# The same predictions where every absent class is known to be absent.
test_evaluator = [
    val_evaluator,
    dict(val_evaluator, metric='bbox', prefix='exhaustive',
         ann_file=data_root + 'annotations/digits_lvis_val_exhaustive.json')]
