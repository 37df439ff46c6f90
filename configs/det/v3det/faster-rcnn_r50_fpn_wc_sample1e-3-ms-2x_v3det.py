# Plain ResNet-50, Faster R-CNN (Table 6b).
_base_ = '../../_base_/recipes/v3det_faster-rcnn.py'
