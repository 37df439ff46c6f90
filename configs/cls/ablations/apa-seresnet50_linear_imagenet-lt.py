# Linear classifier with bias.
_base_ = '../../_base_/recipes/imagenet-lt_200e.py'
model = dict(head=dict(type='apa_mm.LongTailLinearClsHead'))
