# Cosine classifier with a learned scale, 25 at the start.
_base_ = '../imagenet_lt/apa-seresnet50_4xb64-mixup-200e_imagenet-lt.py'
model = dict(head=dict(learnable_scale=True))
