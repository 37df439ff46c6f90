# Plain ResNet-50, no trick, 100 epochs (Table 14).
_base_ = '../../_base_/recipes/imagenet-lt_plain_100e.py'
