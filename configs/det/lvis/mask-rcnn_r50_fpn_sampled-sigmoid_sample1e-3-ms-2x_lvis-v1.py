# Sigmoids over sampled classes on a plain ResNet-50.
_base_ = '../../_base_/recipes/lvis_mask-rcnn_sampled-sigmoid.py'
