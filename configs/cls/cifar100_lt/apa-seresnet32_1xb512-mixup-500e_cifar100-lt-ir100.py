# APA* gates and AGLU units.
_base_ = '../../_base_/recipes/cifar100-lt_500e.py'
