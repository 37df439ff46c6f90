# GOL on a plain ResNet-50 (Table 5).
_base_ = '../../_base_/recipes/lvis_mask-rcnn_gol.py'
