# APA* gates and AGLU units. The settings are those of the authors' command for
# SE-ResNet-152, the only one they give; files of theirs for other depths carry
# the same epoch count and names of the same augmentations.
_base_ = [
    '../../_base_/models/apa-seresnet50_cls.py',
    '../../_base_/datasets/imagenet_192.py',
    '../../_base_/schedules/sgd-coslr_200e.py'
]
model = dict(
    backbone=dict(
        attention_cfg=dict(
            type='apa_mm.ChannelAttention',
            # The paper's range for ImageNet-1K; long-tailed sets: (-1, 0).
            gate_cfg=dict(type='apa_mm.APA', kappa_init=(0., 1.)))))
train_cfg = dict(max_epochs=100)
optim_wrapper = dict(
    optimizer=dict(lr=0.256, momentum=0.875, weight_decay=2**-14))
