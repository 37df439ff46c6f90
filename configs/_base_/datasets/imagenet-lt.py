# ImageNet-LT: images of ImageNet-1K, lists ImageNet_LT_{train,test}.txt.
# Pipelines of ImageNet-1K, for crops of 224 pixels in training too.
_base_ = './imagenet_192.py'
dataset_type = 'apa_mm.ImageNetLT'
data_root = 'data/imagenet/'

train_pipeline = _base_.train_pipeline
train_pipeline[1].scale = 224
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = 256

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
