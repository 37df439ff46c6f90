# GELU, as MMPretrain has it (Table 10).
_base_ = '../../_base_/recipes/vit-base_200e.py'
