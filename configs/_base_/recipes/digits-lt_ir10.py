# Digits-LT, imbalance 10, cross entropy.
_base_ = [
    '../models/resnet20_digits.py', '../datasets/digits-lt_ir10.py',
    '../schedules/digits-lt_60e.py'
]
