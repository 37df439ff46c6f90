# Digits-LVIS: a small Mask R-CNN, 500 iterations.
_base_ = [
    '../models/mask-rcnn_resnet18_fpn_tiny.py',
    '../datasets/digits-lvis_instance.py', '../schedules/adamw_500i.py'
]
