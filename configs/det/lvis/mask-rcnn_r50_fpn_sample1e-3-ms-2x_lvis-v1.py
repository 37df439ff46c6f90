# Softmax on a plain ResNet-50 (Table 5: RFS).
_base_ = '../../_base_/recipes/lvis_mask-rcnn.py'
