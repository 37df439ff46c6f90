"""Language models on an mmengine Runner (Table 15); needs the extra ``lm``.

transformers and tokenizers are imported when one is built, not before.
"""
from .datasets import HellaSwagEndings, TokenShards
from .gpt2 import GPT2
from .metrics import HellaSwagAccuracy, TokenLoss

__all__ = ['GPT2', 'HellaSwagAccuracy', 'HellaSwagEndings', 'TokenLoss',
           'TokenShards']
