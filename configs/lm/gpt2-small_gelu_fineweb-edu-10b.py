# GELU, in the tanh form of GPT-2 (Table 15).
_base_ = '../_base_/recipes/gpt2-small_fineweb-edu-10b.py'
