"""ResNet for 32 x 32 images with AGLU units and channel attention."""
from typing import List, Optional, Sequence, Union

import torch.nn.functional as F
from mmcv.cnn import build_conv_layer, build_norm_layer
from torch import Tensor, nn

from apa_mm.layers import build_site_activation
from apa_mm.registry import MODELS

from .resnet import APAResNet
from .resnet_blocks import ACT_CFG, NORM_CFG, BasicBlock

__all__ = ['APAResNetCIFAR', 'ZeroPadShortcut']

STEM_CHANNELS = 16
# fan_in, as in nn.init.kaiming_normal_ without arguments; it covers the
# linear layers of the attention too.
INIT_CFG = [
    dict(type='Kaiming', layer=['Conv2d', 'Linear'], mode='fan_in'),
    dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
]


class ZeroPadShortcut(nn.Module):
    """Shortcut without parameters: every other place, zeros as new channels.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output; the new ones are zero, one
            half before and one half after those of the input.
        stride (int): Step between the places that are kept.

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


def _make_shortcut(in_channels: int, out_channels: int, stride: int,
                   conv_cfg: Optional[dict],
                   norm_cfg: dict) -> Optional[nn.Sequential]:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(ZeroPadShortcut(in_channels, out_channels, stride))


@MODELS.register_module()
class APAResNetCIFAR(APAResNet):
    """ResNet-20 to ResNet-110 for CIFAR, as :class:`APAResNet` in all else.

    A 3x3 stem, three stages of n basic blocks with 16, 32 and 64 channels and
    strides 1, 2, 2, and shortcuts without parameters: depth = 6n + 2. At
    depth 32 with a 100-way linear head it has 484,656 parameters.

    Args:
        depth (int): 20, 32, 44, 56 or 110.
        in_channels (int): Channels of the image.
        out_indices (Sequence[int]): Stages to return, 0 to 2, in rising
            order.
        frozen_stages (int): -1 trains all, 0 freezes the stem, n the stem
            and the first n stages; 3 freezes the whole backbone.
        conv_cfg (dict, optional): Convolution type.
        norm_cfg (dict): Norm type.
        norm_eval (bool): Keep BatchNorm in eval mode while training.
        act_cfg (dict): Any registered activation; every site gets its own
            module.
        attention_cfg (dict, optional): Attention at the end of every block,
            by default APA* with reduction 4; None for none.
        with_cp (bool): Checkpoint the blocks to save memory.
        fuse (bool, optional): See :class:`APAResNet`; the two blocks whose
            shortcut pads are never joined.
        zero_init_residual (bool): Start the last norm of every block at 0.
        init_cfg (dict | list[dict], optional): Initialisation, by default
            Kaiming-normal for convolutions and linear layers.

    Raises:
        ValueError: For a depth or index that does not exist.

    Example:
        >>> import torch
        >>> model = APAResNetCIFAR(depth=20)
        >>> [tuple(x.shape) for x in model(torch.rand(2, 3, 32, 32))]
        [(2, 64, 8, 8)]
    """

    architectures = {
        depth: (BasicBlock, ((depth - 2) // 6, ) * 3)
        for depth in (20, 32, 44, 56, 110)
    }
    stem_channels = STEM_CHANNELS
    make_shortcut = staticmethod(_make_shortcut)

    def __init__(self,
                 depth: int,
                 in_channels: int = 3,
                 out_indices: Sequence[int] = (2, ),
                 frozen_stages: int = -1,
                 conv_cfg: Optional[dict] = None,
                 norm_cfg: dict = NORM_CFG,
                 norm_eval: bool = False,
                 act_cfg: dict = ACT_CFG,
                 attention_cfg: Optional[dict] = dict(
                     type='apa_mm.ChannelAttention', reduction=4),
                 with_cp: bool = False,
                 fuse: Optional[bool] = None,
                 zero_init_residual: bool = False,
                 init_cfg: Optional[Union[dict, List[dict]]] = None) -> None:
        super().__init__(
            depth,
            in_channels=in_channels,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            norm_eval=norm_eval,
            act_cfg=act_cfg,
            attention_cfg=attention_cfg,
            with_cp=with_cp,
            fuse=fuse,
            zero_init_residual=zero_init_residual,
            init_cfg=INIT_CFG if init_cfg is None else init_cfg)

    def _add_stem(self, in_channels: int, conv_cfg: Optional[dict],
                  norm_cfg: dict, act_cfg: dict) -> None:
        self.conv1 = build_conv_layer(
            conv_cfg, in_channels, STEM_CHANNELS, 3, padding=1, bias=False)
        self._norm1, norm = build_norm_layer(
            norm_cfg, STEM_CHANNELS, postfix=1)
        self.add_module(self._norm1, norm)
        self.act1 = build_site_activation(act_cfg, STEM_CHANNELS)
        self.maxpool = nn.Identity()
