"""Residual blocks with one activation module per site and attention."""
from typing import Dict, List, Optional, Sequence

import torch.utils.checkpoint as cp
from mmcv.cnn import build_conv_layer, build_norm_layer, build_plugin_layer
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import Tensor, nn

from apa_mm.layers import (ChannelAttention, build_site_activation, can_fuse,
                           fused_block_end, fused_norm_act, may_overwrite)
from apa_mm.registry import MODELS

ACT_CFG = dict(type='apa_mm.AGLU')
NORM_CFG = dict(type='BN', requires_grad=True)


def _norm_behind(index: int) -> property:
    """Return a property: the norm behind ``conv<index>``, 'bn1' or 'gn1'."""
    def norm(self: nn.Module) -> nn.Module:
        return getattr(self, getattr(self, f'norm{index}_name'))

    return property(norm)


class _ResidualBlock(BaseModule):
    """Convolutions with norm and unit, attention, shortcut, unit.

    ``base_channels`` is the width of the stage, ``dilation`` that of the
    first 3x3 convolution, ``downsample`` the projection of the shortcut and
    ``drop_path_rate`` the probability of dropping the branch. Only
    bottlenecks take groups, dcn and plugins (``cfg`` and ``position``,
    'after_conv1' to 'after_conv3'). Other arguments are those of
    :class:`apa_mm.APAResNet`, for one block.
    """

    expansion: int
    num_convs: int
    #: For replace_activations: the source fetches them by number.
    called_once = ('act1', 'act2', 'act3')

    def __init__(self, in_channels: int, base_channels: int, stride: int = 1,
                 dilation: int = 1, downsample: Optional[nn.Module] = None,
                 style: str = 'pytorch', groups: int = 1,
                 base_width: float = 64, with_cp: bool = False,
                 conv_cfg: Optional[dict] = None, norm_cfg: dict = NORM_CFG,
                 act_cfg: dict = ACT_CFG, attention_cfg: Optional[dict] = None,
                 fuse: Optional[bool] = None, dcn: Optional[dict] = None,
                 plugins: Sequence[dict] = (), drop_path_rate: float = 0.0,
                 expansion: Optional[int] = None,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg)
        self.fuse, self.with_cp, self.dcn = fuse, with_cp, dcn
        self.conv_cfg, self.norm_cfg = conv_cfg, norm_cfg
        self.act_cfg = act_cfg
        self.stride, self.dilation, self.style = stride, dilation, style
        self.expansion = expansion or self.expansion
        self.out_channels = base_channels * self.expansion
        self._build_branch(in_channels, base_channels, groups, base_width)
        self.downsample = downsample
        self.attention = None
        if attention_cfg is not None:
            self.attention = MODELS.build(
                dict(attention_cfg, in_channels=self.out_channels))
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else None
        self._plugins: Dict[int, List[str]] = {}
        for plugin in plugins:
            self._add_plugin(**plugin)

    def _build_branch(self, in_channels: int, base_channels: int, groups: int,
                      base_width: float) -> None:
        raise NotImplementedError

    def _add_site(self, index: int, in_channels: int, out_channels: int,
                  kernel_size: int, conv_cfg: Optional[dict] = None,
                  **kwargs) -> None:
        """Add ``conv<index>``, its norm layer and ``act<index>``."""
        conv = build_conv_layer(
            conv_cfg or self.conv_cfg, in_channels, out_channels, kernel_size,
            padding=kwargs.get('dilation', 1) * (kernel_size // 2),
            bias=False, **kwargs)
        self.add_module(f'conv{index}', conv)
        name, norm = build_norm_layer(self.norm_cfg, out_channels, index)
        self.add_module(name, norm)
        setattr(self, f'norm{index}_name', name)
        self.add_module(f'act{index}',
                        build_site_activation(self.act_cfg, out_channels))

    def _add_plugin(self, cfg: dict, position: str) -> None:
        sites = {f'after_conv{i + 1}': i + 1 for i in range(self.num_convs)}
        if self.num_convs < 3 or position not in sites:
            raise ValueError(
                'plugins need a bottleneck (depth 50 or more) and a position '
                f"of 'after_conv1' to 'after_conv3', but got {position!r} in "
                f'{type(self).__name__}')
        cfg, index = dict(cfg), sites[position]
        channels = getattr(self, f'conv{index}').out_channels
        name, layer = build_plugin_layer(
            cfg, cfg.pop('postfix', ''), in_channels=channels)
        if name in self._modules:
            raise ValueError(f'plugin {name!r} is there twice; give each its '
                             "own 'postfix'")
        self.add_module(name, layer)
        self._plugins.setdefault(index, []).append(name)

    norm1, norm2 = _norm_behind(1), _norm_behind(2)

    @property
    def last_norm(self) -> nn.Module:
        """Norm before the attention."""
        return getattr(self, f'norm{self.num_convs}')

    @property
    def last_act(self) -> nn.Module:
        """Activation after the addition."""
        return getattr(self, f'act{self.num_convs}')

    relu = last_act

    def _end_is_plain(self) -> bool:
        return (self.drop_path is None and self.num_convs not in self._plugins
                and type(self.attention) in (type(None), ChannelAttention))

    def _shortcut_norm(self) -> Optional[nn.BatchNorm2d]:
        """Return the BatchNorm that ends the shortcut, if there is one."""
        if type(self.downsample) is nn.Sequential:
            last = self.downsample[-1]
            return last if type(last) is nn.BatchNorm2d else None
        return None

    def _fused_modules(self) -> List[Optional[nn.Module]]:
        """Return the modules that are not called when the block is fused."""
        modules = [getattr(self, f'{kind}{index + 1}')
                   for index in range(self.num_convs)
                   for kind in ('norm', 'act')]
        if self._end_is_plain():
            norm = self._shortcut_norm()
            modules += [self.attention, norm, norm and self.downsample]
        return modules

    def _run_plugins(self, index: int, x: Tensor) -> Tensor:
        for name in self._plugins.get(index, ()):
            x = getattr(self, name)(x)
        return x

    def _fused_end(self, x: Tensor, identity: Tensor) -> Tensor:
        norm = self._shortcut_norm()
        if norm is not None:
            for module in list(self.downsample)[:-1]:
                identity = module(identity)
        elif self.downsample is not None:
            identity = self.downsample(identity)
        conv = getattr(self, f'conv{self.num_convs}')
        return fused_block_end(self.last_norm, self.attention, self.last_act,
                               x, identity, norm, may_overwrite(conv))

    def _end(self, x: Tensor, identity: Tensor) -> Tensor:
        out = self._run_plugins(self.num_convs, self.last_norm(x))
        if self.attention is not None:
            out = self.attention(out)
        if self.drop_path is not None:
            out = self.drop_path(out)
        if self.downsample is not None:
            identity = self.downsample(identity)
        return self.last_act(out + identity)

    def _block(self, x: Tensor) -> Tensor:
        out = self.conv1(x)
        fused = can_fuse(self.fuse, out, self._fused_modules())
        for index in range(1, self.num_convs):
            conv, norm, act = (getattr(self, f'{kind}{index}')
                               for kind in ('conv', 'norm', 'act'))
            out = fused_norm_act(norm, act, out, may_overwrite(conv)) \
                if fused else act(norm(out))
            out = self._run_plugins(index, out)
            out = getattr(self, f'conv{index + 1}')(out)
        if fused and self._end_is_plain():
            return self._fused_end(out, x)
        return self._end(out, x)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H', W')."""
        if self.with_cp and x.requires_grad:
            return cp.checkpoint(self._block, x, use_reentrant=False)
        return self._block(x)


class BasicBlock(_ResidualBlock):
    """Two 3x3 convolutions; the block of ResNet-18 and ResNet-34."""

    expansion = 1
    num_convs = 2

    def _build_branch(self, in_channels: int, base_channels: int, groups: int,
                      base_width: float) -> None:
        if groups != 1 or base_width != 64:
            raise ValueError(
                'BasicBlock (depths 18 and 34) supports groups=1 and '
                f'base_width=64 only, but got groups={groups} and '
                f'base_width={base_width}; use depth 50 or more for ResNeXt')
        if self.dcn is not None:
            raise ValueError('BasicBlock (depths 18 and 34) has no dcn; use '
                             'depth 50 or more')
        self._add_site(1, in_channels, base_channels, 3, stride=self.stride,
                       dilation=self.dilation)
        self._add_site(2, base_channels, self.out_channels, 3)


class Bottleneck(_ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions; the block of ResNet-50 and deeper."""

    expansion = 4
    num_convs = 3
    norm3 = _norm_behind(3)

    def _build_branch(self, in_channels: int, base_channels: int, groups: int,
                      base_width: float) -> None:
        width = int(base_channels * base_width / 64) * groups
        first, second = 1, self.stride
        if self.style == 'caffe':
            first, second = second, first
        self._add_site(1, in_channels, width, 1, stride=first)
        dcn = dict(self.dcn or {})
        if dcn.pop('fallback_on_stride', False) and self.stride != 1:
            dcn = {}
        self._add_site(2, width, width, 3, conv_cfg=dcn, stride=second,
                       dilation=self.dilation, groups=groups)
        self._add_site(3, width, self.out_channels, 1)


#: depth -> (block class, blocks per stage)
ARCHITECTURES: Dict[int, tuple] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
