# APA* gates and AGLU units, which are the defaults of APAResNet.
_base_ = '../../_base_/recipes/imagenet-lt_200e.py'
