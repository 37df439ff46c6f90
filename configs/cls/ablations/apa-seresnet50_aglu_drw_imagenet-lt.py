# Deferred re-weighting on APA* gates and AGLU units.
_base_ = '../../_base_/recipes/imagenet-lt_drw.py'
