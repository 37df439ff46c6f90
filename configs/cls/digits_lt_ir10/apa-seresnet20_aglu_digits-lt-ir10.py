# APA* gates and AGLU units, cross-entropy.
_base_ = [
    '../../_base_/models/apa-seresnet20_digits.py',
    '../../_base_/datasets/digits-lt_ir10.py',
    '../../_base_/schedules/digits-lt_60e.py'
]
