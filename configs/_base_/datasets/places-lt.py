# Places-LT: images of Places365, lists Places_LT_{train,test}.txt.
_base_ = './imagenet-lt.py'
dataset_type = 'apa_mm.PlacesLT'
data_root = 'data/places365/'
train_list = 'Places_LT_train.txt'
data_preprocessor = dict(num_classes=365)
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file=train_list,
        num_images=62500))
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='Places_LT_test.txt',
        train_ann_file=train_list,
        num_images=36500))
test_dataloader = val_dataloader
