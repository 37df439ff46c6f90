# PC-softmax with the offset 'rel' (the recipe: 'raw').
_base_ = '../../_base_/recipes/imagenet-lt_200e.py'
model = dict(head=dict(logit_offset=dict(type='rel')))
