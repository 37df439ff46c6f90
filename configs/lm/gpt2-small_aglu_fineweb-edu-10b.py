# AGLU in every MLP (Table 15), from its own starting range.
_base_ = '../_base_/recipes/gpt2-small_fineweb-edu-10b.py'
model = dict(
    type='apa_mm.ReplacedActivations', model='apa_mm.GPT2',
    replace=dict(init='random'))
