"""Stems and shortcuts of other libraries' ResNets, with AGLU units."""
from typing import Any

from torch import nn

from apa_mm.registry import MODELS

from .resnet import APAResNet


@MODELS.register_module()
class APAResNetD(APAResNet):
    """The ResNet-D form: three 3x3 convolutions, pooled shortcuts.

    "Bag of Tricks for Image Classification" (CVPR 2019). Names are those of
    timm's ``resnet50d`` and ``seresnet50d``: ``conv1.{0,3,6}``,
    ``downsample.{1,2}``. ``deep_stem=True`` gives mmdet's and
    mmsegmentation's (``stem.0``), with ``avg_down=False`` their ResNetV1c.
    Arguments are those of :class:`APAResNet`.

    Example:
        >>> import torch
        >>> model = APAResNetD(depth=18).eval()
        >>> [tuple(x.shape) for x in model(torch.rand(1, 3, 32, 32))][-1]
        (1, 512, 1, 1)
    """

    def __init__(self, *args: Any, avg_down: bool = True,
                 **kwargs: Any) -> None:
        super().__init__(*args, avg_down=avg_down, **kwargs)

    def _add_stem(self, in_channels: int, channels: int) -> None:
        super()._add_stem(in_channels, channels)
        if not self.deep_stem:
            half = channels // 2
            self.conv1 = nn.Sequential(
                *self._sites(in_channels, (half, 2), (half, 1)),
                self._conv(half, channels, 3, 1))


@MODELS.register_module()
class APAResNetLegacy(APAResNet):
    """The form of the first SE-Net ports: a max pooling without padding.

    Maps have the size of padded ones, but each window lies one place further.
    Their SE-ResNets, not their SE-ResNeXts, need ``style='caffe'`` too.
    Arguments are those of :class:`APAResNet`.

    Example:
        >>> APAResNetLegacy(depth=18).maxpool.padding
        0
    """

    def _add_stem(self, in_channels: int, channels: int) -> None:
        super()._add_stem(in_channels, channels)
        self.maxpool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
