# AGLU in every FFN, all 300 epochs of MMPretrain's recipe.
_base_ = './vit-base-p16_aglu_32xb128-mae-200e_in1k.py'
train_cfg = dict(max_epochs=300)
