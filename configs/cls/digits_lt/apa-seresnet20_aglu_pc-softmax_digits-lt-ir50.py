# APA* gates and AGLU units; the prior is divided out at test time.
_base_ = './apa-seresnet20_aglu_digits-lt-ir50.py'
model = dict(head=dict(logit_offset=dict(type='raw')))
custom_hooks = [dict(type='apa_mm.ClassFrequencyHook')]
