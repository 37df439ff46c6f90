# Plain ResNet-50, no trick, 200 epochs (Table 14).
_base_ = '../../_base_/recipes/imagenet-lt_plain_100e.py'
train_cfg = dict(max_epochs=200)
