# Cosine classifier with a learned scale, 25 at the start.
_base_ = '../../_base_/recipes/imagenet-lt_200e.py'
model = dict(head=dict(learnable_scale=True))
