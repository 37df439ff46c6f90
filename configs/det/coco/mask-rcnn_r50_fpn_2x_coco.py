# Plain ResNet-50 (Table 6a).
_base_ = '../../_base_/recipes/coco_mask-rcnn.py'
