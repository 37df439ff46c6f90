# ImageNet-1K. The settings are those of the authors' command for
# SE-ResNet-152, the only one they give; files of theirs for other depths carry
# the same epoch count and names of the same augmentations.
_base_ = [
    '../models/resnet50_cls.py', '../datasets/imagenet_192.py',
    '../schedules/sgd-coslr_200e.py'
]
train_cfg = dict(max_epochs=100)
optim_wrapper = dict(
    optimizer=dict(lr=0.256, momentum=0.875, weight_decay=2**-14))
