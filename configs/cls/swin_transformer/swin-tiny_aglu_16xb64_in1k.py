# AGLU in every FFN, all 300 epochs of MMPretrain's recipe.
_base_ = './swin-tiny_aglu_16xb64-100e_in1k.py'
train_cfg = dict(max_epochs=300)
