# GELU, as MMPretrain has it (Table 10).
_base_ = '../../_base_/recipes/swin-tiny_100e.py'
