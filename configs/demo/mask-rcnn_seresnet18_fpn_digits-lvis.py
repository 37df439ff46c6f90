# The baseline: SE-ResNet-18 with ReLU and sigmoid gates, softmax classifier.
_base_ = ['../_base_/recipes/digits-lvis.py', '../_base_/models/seresnet.py']
model = dict(backbone=_base_.seresnet)
