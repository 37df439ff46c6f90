"""Classifier heads on the contract of MMPretrain's ``ClsHead``."""
from .classifiers import (CosineClsHead, LongTailLinearClsHead,
                          NormalizedLinearClsHead)
from .logit_offset import LogitOffset

__all__ = ['CosineClsHead', 'LogitOffset', 'LongTailLinearClsHead',
           'NormalizedLinearClsHead']
