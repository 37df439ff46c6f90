# Plain ResNet-50, Cascade R-CNN (Table 6b).
_base_ = '../../_base_/recipes/v3det_cascade-rcnn.py'
