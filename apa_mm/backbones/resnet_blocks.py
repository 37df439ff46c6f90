"""Residual blocks with one activation module per site and attention."""
from typing import Optional

import torch.utils.checkpoint as cp
from mmcv.cnn import build_conv_layer, build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from apa_mm.layers import (build_site_activation, can_fuse, fused_block_end,
                           fused_norm_act)
from apa_mm.registry import MODELS

__all__ = ['BasicBlock', 'Bottleneck']

ACT_CFG = dict(type='apa_mm.AGLU')
NORM_CFG = dict(type='BN', requires_grad=True)


class _ResidualBlock(BaseModule):
    """What both blocks share: shortcut, attention, checkpointing.

    Args:
        in_channels (int): Channels of the input.
        base_channels (int): Base width of the stage, 64 to 512.
        stride (int): Stride of the block, 1 or 2.
        dilation (int): Dilation of the 3x3 convolution.
        downsample (nn.Module, optional): Projection of the shortcut.
        style (str): 'pytorch' puts the stride on the 3x3 convolution of a
            bottleneck, 'caffe' on its first 1x1.
        groups (int): Groups of a bottleneck's 3x3 convolution (ResNeXt).
        base_width (int): Width per group (ResNeXt: 4; ResNet: 64).
        with_cp (bool): Trade compute for memory by checkpointing.
        conv_cfg (dict, optional): Convolution type.
        norm_cfg (dict): Norm type.
        act_cfg (dict): Activation, built anew for every site.
        attention_cfg (dict, optional): Attention before the addition, built
            with ``in_channels`` set; None for none.
        fuse (bool, optional): Whether to join BatchNorm, attention, addition
            and AGLU, see :func:`apa_mm.layers.can_fuse`.
        init_cfg (dict, optional): Initialisation.
    """

    expansion: int = 1
    #: For replace_activations: the source fetches them by number.
    called_once = ('act1', 'act2', 'act3')

    def __init__(self,
                 in_channels: int,
                 base_channels: int,
                 stride: int = 1,
                 dilation: int = 1,
                 downsample: Optional[nn.Module] = None,
                 style: str = 'pytorch',
                 groups: int = 1,
                 base_width: int = 64,
                 with_cp: bool = False,
                 conv_cfg: Optional[dict] = None,
                 norm_cfg: dict = NORM_CFG,
                 act_cfg: dict = ACT_CFG,
                 attention_cfg: Optional[dict] = None,
                 fuse: Optional[bool] = None,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg)
        self.fuse = fuse
        self.conv_cfg, self.norm_cfg = conv_cfg, norm_cfg
        self.act_cfg = act_cfg
        self.with_cp = with_cp
        self.out_channels = base_channels * self.expansion
        self._build_branch(in_channels, base_channels, stride, dilation, style,
                           groups, base_width)
        self.downsample = downsample
        self.attention = None
        if attention_cfg is not None:
            self.attention = MODELS.build(
                dict(attention_cfg, in_channels=self.out_channels))

    def _add_conv(self, index: int, in_channels: int, out_channels: int,
                  kernel_size: int, **kwargs) -> None:
        """Add ``conv<index>`` and its norm layer."""
        padding = kwargs.get('dilation', 1) * (kernel_size // 2)
        conv = build_conv_layer(
            self.conv_cfg,
            in_channels,
            out_channels,
            kernel_size,
            padding=padding,
            bias=False,
            **kwargs)
        self.add_module(f'conv{index}', conv)
        name, norm = build_norm_layer(
            self.norm_cfg, out_channels, postfix=index)
        self.add_module(name, norm)
        setattr(self, f'_norm{index}', name)

    def _add_act(self, index: int, channels: int) -> None:
        self.add_module(f'act{index}',
                        build_site_activation(self.act_cfg, channels))

    def norm(self, index: int) -> nn.Module:
        """Return the norm layer after ``conv<index>``."""
        return getattr(self, getattr(self, f'_norm{index}'))

    def _build_branch(self, in_channels: int, base_channels: int, stride: int,
                      dilation: int, style: str, groups: int,
                      base_width: int) -> None:
        raise NotImplementedError

    def _branch(self, x: Tensor) -> Tensor:
        """Return the input of the block's last norm."""
        raise NotImplementedError

    def _norm_act(self, index: int, x: Tensor) -> Tensor:
        norm, act = self.norm(index), getattr(self, f'act{index}')
        if can_fuse(self.fuse, x, norm, act):
            return fused_norm_act(norm, act, x)
        return act(norm(x))

    def _block(self, x: Tensor) -> Tensor:
        out = self._branch(x)
        norm, act = self.last_norm, self.last_act
        projection = self.downsample
        if not isinstance(projection, nn.Sequential):
            # No BatchNorm whose output could be computed again.
            x = x if projection is None else projection(x)
            projection = None
        if can_fuse(self.fuse, out, norm, self.attention, act, projection
                    and projection[-1]):
            return fused_block_end(norm, self.attention, act, out, x,
                                   projection)
        out = norm(out)
        if self.attention is not None:
            out = self.attention(out)
        return act(out + (x if projection is None else projection(x)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H', W')."""
        if self.with_cp and x.requires_grad:
            return cp.checkpoint(self._block, x, use_reentrant=False)
        return self._block(x)

    @property
    def last_norm(self) -> nn.Module:
        """Norm before the attention."""
        raise NotImplementedError

    @property
    def last_act(self) -> nn.Module:
        """Activation after the addition."""
        raise NotImplementedError


class BasicBlock(_ResidualBlock):
    """Two 3x3 convolutions; the block of ResNet-18 and ResNet-34."""

    expansion = 1

    def _build_branch(self, in_channels: int, base_channels: int, stride: int,
                      dilation: int, style: str, groups: int,
                      base_width: int) -> None:
        if groups != 1 or base_width != 64:
            raise ValueError(
                'BasicBlock (depths 18 and 34) supports groups=1 and '
                f'base_width=64 only, but got groups={groups} and '
                f'base_width={base_width}; use depth 50 or more for ResNeXt')
        self._add_conv(
            1, in_channels, base_channels, 3, stride=stride, dilation=dilation)
        self._add_act(1, base_channels)
        self._add_conv(2, base_channels, base_channels, 3)
        self._add_act(2, base_channels)

    def _branch(self, x: Tensor) -> Tensor:
        return self.conv2(self._norm_act(1, self.conv1(x)))

    @property
    def last_norm(self) -> nn.Module:
        """Norm before the attention."""
        return self.norm(2)

    @property
    def last_act(self) -> nn.Module:
        """Activation after the addition."""
        return self.act2


class Bottleneck(_ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions; the block of ResNet-50 and deeper."""

    expansion = 4

    def _build_branch(self, in_channels: int, base_channels: int, stride: int,
                      dilation: int, style: str, groups: int,
                      base_width: int) -> None:
        width = int(base_channels * base_width / 64) * groups
        first, second = (1, stride) if style == 'pytorch' else (stride, 1)
        self._add_conv(1, in_channels, width, 1, stride=first)
        self._add_act(1, width)
        self._add_conv(
            2,
            width,
            width,
            3,
            stride=second,
            dilation=dilation,
            groups=groups)
        self._add_act(2, width)
        self._add_conv(3, width, self.out_channels, 1)
        self._add_act(3, self.out_channels)

    def _branch(self, x: Tensor) -> Tensor:
        out = self.conv2(self._norm_act(1, self.conv1(x)))
        return self.conv3(self._norm_act(2, out))

    @property
    def last_norm(self) -> nn.Module:
        """Norm before the attention."""
        return self.norm(3)

    @property
    def last_act(self) -> nn.Module:
        """Activation after the addition."""
        return self.act3


def build_shortcut(in_channels: int, out_channels: int, stride: int,
                   conv_cfg: Optional[dict],
                   norm_cfg: dict) -> Optional[nn.Sequential]:
    """Return the 1x1 projection of a shortcut, or None if it is not needed."""
    if stride == 1 and in_channels == out_channels:
        return None
    conv = build_conv_layer(
        conv_cfg, in_channels, out_channels, 1, stride=stride, bias=False)
    return nn.Sequential(conv, build_norm_layer(norm_cfg, out_channels)[1])


#: depth -> (block class, blocks per stage)
ARCHITECTURES: dict = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
