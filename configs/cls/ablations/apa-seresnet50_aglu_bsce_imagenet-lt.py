# Balanced softmax on APA* gates and AGLU units.
_base_ = '../../_base_/recipes/imagenet-lt_bsce.py'
