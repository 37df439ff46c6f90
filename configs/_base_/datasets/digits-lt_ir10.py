# Digits-LT, 134 training images of digit 0 down to 13 of digit 9.
_base_ = './digits-lt_ir50.py'
imbalance_factor = 10
train_dataloader = dict(dataset=dict(imbalance_factor=imbalance_factor))
val_dataloader = dict(dataset=dict(imbalance_factor=imbalance_factor))
test_dataloader = dict(dataset=dict(imbalance_factor=imbalance_factor))
