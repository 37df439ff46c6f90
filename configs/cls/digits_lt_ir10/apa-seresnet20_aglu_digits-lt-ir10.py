# APA* gates and AGLU units.
_base_ = '../../_base_/recipes/digits-lt_ir10.py'
