# Digits-LT, imbalance 50, cross entropy.
_base_ = [
    '../models/resnet20_digits.py', '../datasets/digits-lt_ir50.py',
    '../schedules/digits-lt_60e.py'
]
