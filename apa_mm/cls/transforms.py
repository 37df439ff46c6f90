"""torchvision's AutoAugment with its policy for CIFAR-10.

MMPretrain offers all of torchvision's transforms to configs, but this policy
is chosen by an enum, which a config cannot hold.
"""
from functools import partial

from mmpretrain.datasets.transforms.processing import \
    TorchVisonTransformWrapper
from torchvision.transforms import AutoAugment, AutoAugmentPolicy

from apa_mm.registry import TRANSFORMS

# Takes PIL images and torchvision's arguments, ``interpolation`` by name.
TRANSFORMS.register_module(
    name='CIFARAutoAugment',
    module=partial(TorchVisonTransformWrapper,
                   partial(AutoAugment, AutoAugmentPolicy.CIFAR10)))
