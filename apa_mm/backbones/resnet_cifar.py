"""ResNet for 32 x 32 images with AGLU units and channel attention."""
from typing import Any, List, Optional, Sequence, Union

import torch.nn.functional as F
from torch import Tensor, nn

from apa_mm.registry import MODELS

from .resnet import DEFAULT_INIT, APAResNet
from .resnet_blocks import ARCHITECTURES, BasicBlock

# fan_in, as in nn.init.kaiming_normal_ without arguments; it covers the
# linear layers of the attention too.
INIT_CFG = [
    dict(type='Kaiming', layer=['Conv2d', 'Linear'], mode='fan_in'),
    DEFAULT_INIT[1],
]


class ZeroPadShortcut(nn.Module):
    """Shortcut without parameters: every ``stride``-th place.

    Half of the new channels, zeros, come before those of the input.

    Example:
        >>> import torch
        >>> ZeroPadShortcut(1, 3, stride=2)(torch.ones(1, 1, 4, 4))[0, :, 0, 0]
        tensor([0., 1., 0.])
    """

    def __init__(self, in_channels: int, out_channels: int,
                 stride: int) -> None:
        super().__init__()
        new = out_channels - in_channels
        self.padding = (new // 2, new - new // 2)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H', W')."""
        x = x[:, :, ::self.stride, ::self.stride]
        return F.pad(x, (0, 0, 0, 0, *self.padding))

    def extra_repr(self) -> str:
        """Return the settings for ``print(module)``."""
        return f'padding={self.padding}, stride={self.stride}'


@MODELS.register_module()
class APAResNetCIFAR(APAResNet):
    """ResNet-20 to ResNet-110 for CIFAR, as :class:`APAResNet` in all else.

    A 3x3 stem, three stages of n basic blocks with 16, 32 and 64 channels and
    strides 1, 2, 2, and shortcuts without parameters: depth = 6n + 2. At
    depth 32 with a 100-way linear head it has 484,656 parameters.

    The depths of :class:`APAResNet` give MMPretrain's ``ResNet_CIFAR``: the
    same stem with 64 channels, then that depth's four stages.

    Args:
        depth (int): 20, 32, 44, 56 or 110; 18, 34, 50, 101 or 152.
        out_indices (Sequence[int], optional): None is the last stage.
        attention_cfg (dict, optional): By default APA* with reduction 4.
        init_cfg (dict | list[dict], optional): By default Kaiming-normal for
            convolutions and linear layers.
        in_channels, **kwargs: As in :class:`APAResNet`, with its errors.

    Example:
        >>> import torch
        >>> model = APAResNetCIFAR(depth=20)
        >>> [tuple(x.shape) for x in model(torch.rand(2, 3, 32, 32))]
        [(2, 64, 8, 8)]
    """

    architectures = {
        depth: (BasicBlock, ((depth - 2) // 6, ) * 3)
        for depth in (20, 32, 44, 56, 110)
    } | ARCHITECTURES

    def __init__(self, depth: int, in_channels: int = 3,
                 out_indices: Optional[Sequence[int]] = None,
                 attention_cfg: Optional[dict] = dict(
                     type='apa_mm.ChannelAttention', reduction=4),
                 init_cfg: Optional[Union[dict, List[dict]]] = None,
                 **kwargs: Any) -> None:
        if kwargs.get('deep_stem'):
            raise ValueError('APAResNetCIFAR has a stem of one 3x3 '
                             'convolution; remove deep_stem')
        if depth not in ARCHITECTURES:
            kwargs = dict(dict(num_stages=3, base_channels=16), **kwargs)
        stages = kwargs.get('num_stages', 4)
        super().__init__(
            depth, in_channels, attention_cfg=attention_cfg,
            out_indices=(stages - 1, ) if out_indices is None else out_indices,
            init_cfg=INIT_CFG if init_cfg is None else init_cfg, **kwargs)

    def _add_stem(self, in_channels: int, channels: int) -> None:
        self._add_flat_stem(self._conv(in_channels, channels, 3, 1))
        self.maxpool = nn.Identity()

    def _shortcut(self, in_channels: int, out_channels: int,
                  stride: int) -> Optional[nn.Sequential]:
        if self.depth in ARCHITECTURES or (
                stride == 1 and in_channels == out_channels):
            return super()._shortcut(in_channels, out_channels, stride)
        return nn.Sequential(
            ZeroPadShortcut(in_channels, out_channels, stride))
