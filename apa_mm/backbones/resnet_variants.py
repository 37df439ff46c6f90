"""Stems and shortcuts of other libraries' ResNets, with AGLU units."""
from typing import Optional

from mmcv.cnn import build_conv_layer, build_norm_layer
from torch import nn

from apa_mm.layers import build_site_activation
from apa_mm.registry import MODELS

from .resnet import STEM_CHANNELS, APAResNet

__all__ = ['APAResNetD', 'APAResNetLegacy']


def _make_pooled_shortcut(in_channels: int, out_channels: int, stride: int,
                          conv_cfg: Optional[dict],
                          norm_cfg: dict) -> Optional[nn.Sequential]:
    if stride == 1 and in_channels == out_channels:
        return None
    pool = nn.Identity() if stride == 1 else nn.AvgPool2d(
        stride, stride, ceil_mode=True, count_include_pad=False)
    conv = build_conv_layer(conv_cfg, in_channels, out_channels, 1, bias=False)
    return nn.Sequential(pool, conv, build_norm_layer(norm_cfg,
                                                      out_channels)[1])


@MODELS.register_module()
class APAResNetD(APAResNet):
    """The ResNet-D form: three 3x3 convolutions, pooled shortcuts.

    "Bag of Tricks for Image Classification" (CVPR 2019), with an AGLU unit
    after each convolution of the stem. Names are those of timm's ``resnet50d``
    and ``seresnet50d``: ``conv1.{0,3,6}``, ``downsample.{1,2}``.

    Args:
        *args: Positional arguments of :class:`APAResNet`.
        **kwargs: Keyword arguments of :class:`APAResNet`.

    Example:
        >>> import torch
        >>> model = APAResNetD(depth=18).eval()
        >>> [tuple(x.shape) for x in model(torch.rand(1, 3, 32, 32))][-1]
        (1, 512, 1, 1)
    """

    make_shortcut = staticmethod(_make_pooled_shortcut)

    def _add_stem(self, in_channels: int, conv_cfg: Optional[dict],
                  norm_cfg: dict, act_cfg: dict) -> None:
        super()._add_stem(in_channels, conv_cfg, norm_cfg, act_cfg)
        width = STEM_CHANNELS // 2
        layers = []
        for channels, stride in ((in_channels, 2), (width, 1)):
            layers += [
                build_conv_layer(
                    conv_cfg,
                    channels,
                    width,
                    3,
                    stride,
                    padding=1,
                    bias=False),
                build_norm_layer(norm_cfg, width)[1],
                build_site_activation(act_cfg, width)
            ]
        layers.append(
            build_conv_layer(
                conv_cfg, width, STEM_CHANNELS, 3, padding=1, bias=False))
        self.conv1 = nn.Sequential(*layers)


@MODELS.register_module()
class APAResNetLegacy(APAResNet):
    """The form of the first SE-Net ports: a max pooling without padding.

    ``MaxPool2d(3, stride=2, ceil_mode=True)`` instead of a padded one: maps
    have the same size, but each window lies one place further. Their
    SE-ResNets, not their SE-ResNeXts, need ``style='caffe'`` too.

    Args:
        *args: Positional arguments of :class:`APAResNet`.
        **kwargs: Keyword arguments of :class:`APAResNet`.

    Example:
        >>> APAResNetLegacy(depth=18).maxpool.padding
        0
    """

    def _add_stem(self, in_channels: int, conv_cfg: Optional[dict],
                  norm_cfg: dict, act_cfg: dict) -> None:
        super()._add_stem(in_channels, conv_cfg, norm_cfg, act_cfg)
        self.maxpool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
