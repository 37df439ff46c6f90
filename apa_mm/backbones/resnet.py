"""ResNet with adaptive parametric activations and channel attention."""
from typing import Any, List, Optional, Sequence, Tuple, Union

import torch
from mmcv.cnn import build_conv_layer, build_norm_layer
from torch import Tensor, nn

from apa_mm.layers import (build_site_activation, can_fuse, fused_norm_act,
                           may_overwrite)
from apa_mm.registry import MODELS
from apa_mm.utils.checks import check_choice

from .resnet_blocks import ACT_CFG, ARCHITECTURES, NORM_CFG
from .resnet_stages import per_stage, stage_dilations, stage_plugins
from .resnet_training import TrainedBackbone

STRIDES = (1, 2, 2, 2)
DILATIONS = (1, 1, 1, 1)
NO_DCN = (False, False, False, False)
DEFAULT_INIT = [
    dict(type='Kaiming', layer='Conv2d'),
    dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
]


@MODELS.register_module()
class APAResNet(TrainedBackbone):
    """ResNet or ResNeXt with AGLU units and APA* channel attention.

    With ``depth`` alone this is the paper's "APA* + AGLU" network: at depth
    50, with a 1000-way linear head, 28,102,314 parameters. It takes every
    argument of MMDetection's ResNet and ResNeXt, MMPretrain's ResNet,
    ResNeXt, SEResNet and SEResNeXt and MMSegmentation's ResNet, so that a
    child config may replace the ``type`` alone. Names of convolution, norm
    and shortcut tensors equal theirs and torchvision's.

    Set these arguments if the config counted on its library's defaults:

    ====================  =====  =====  ==================  ==============
    argument              here   mmdet  mmpretrain, mmpose  mmsegmentation
    ====================  =====  =====  ==================  ==============
    norm_eval             False  True   False               False
    zero_init_residual    False  True   True                True
    out_indices           all    all    (3, )               all
    ====================  =====  =====  ==================  ==============

    Unlike in mmdet, every site has an activation of its own (stem ``act1``,
    blocks ``act1`` to ``act3``), since its parameters are learned, and a
    frozen stage is in eval mode as a whole, so that its dropout rests too.

    Args:
        depth (int): 18, 34, 50, 101 or 152.
        in_channels, num_stages, strides, dilations, style, frozen_stages,
            conv_cfg, norm_cfg, norm_eval, with_cp, stem_channels,
            base_channels, avg_down, dcn, stage_with_dcn, plugins,
            pretrained: As in mmdet's ResNet.
        out_indices (Sequence[int]): Stages to return, in rising order.
        groups (int): Groups of the 3x3 convolutions; 32 for ResNeXt 32x4d.
        base_width (int, optional): Width per group; None is 64, or 4 with
            ``groups``. Also called ``width_per_group``.
        freeze_stem_act (bool): Whether a frozen stem includes its AGLU; the
            authors' detection code leaves it trainable.
        act_cfg (dict): Any registered activation;
            ``num_parameters='channels'`` learns one value per channel.
        attention_cfg (dict, optional): Attention at the end of every block,
            by default APA*; None for a plain ResNet.
        fuse (bool, optional): Run BatchNorm, attention, addition and AGLU as
            one kernel, with the same results and less memory. True: wherever
            possible; None: where it was measured to be faster, float32 on the
            CPU. See :func:`apa_mm.layers.can_fuse`.
        zero_init_residual (bool): Start the last norm of every block at 0.
            The paper's networks do not.
        init_cfg (dict | list[dict], optional): Initialisation; a
            ``Pretrained`` checkpoint that does not fit raises ValueError.
        expansion (int, optional): Output channels of a block by its width.
        deep_stem (bool): Three 3x3 convolutions, named as in mmdet and
            mmsegmentation, instead of one 7x7.
        drop_path_rate (float): Stochastic depth, rising linearly to this.
        contract_dilation, multi_grid: As in mmsegmentation's ResNet.
        se_ratio (int, optional): ``reduction`` of the attention.

    Raises:
        ValueError: For a depth, stage count, index or style that does not
            exist, or settings of stages that do not fit their number.

    Example:
        >>> import torch
        >>> model = APAResNet(depth=18)
        >>> [tuple(x.shape) for x in model(torch.rand(2, 3, 32, 32))]
        [(2, 64, 8, 8), (2, 128, 4, 4), (2, 256, 2, 2), (2, 512, 1, 1)]
    """

    #: depth -> (block class, blocks per stage)
    architectures: dict = ARCHITECTURES
    called_once = ('act1', )  # for replace_activations, as in the blocks

    def __init__(self, depth: int, in_channels: int = 3, num_stages: int = 4,
                 strides: Sequence[int] = STRIDES,
                 dilations: Sequence[int] = DILATIONS,
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 style: str = 'pytorch', groups: int = 1,
                 base_width: Optional[int] = None, frozen_stages: int = -1,
                 freeze_stem_act: bool = True, conv_cfg: Optional[dict] = None,
                 norm_cfg: dict = NORM_CFG, norm_eval: bool = False,
                 act_cfg: dict = ACT_CFG,
                 attention_cfg: Optional[dict] = dict(
                     type='apa_mm.ChannelAttention'),
                 with_cp: bool = False, fuse: Optional[bool] = None,
                 zero_init_residual: bool = False,
                 init_cfg: Optional[Union[dict, List[dict]]] = None,
                 stem_channels: Optional[int] = None, base_channels: int = 64,
                 expansion: Optional[int] = None, deep_stem: bool = False,
                 avg_down: bool = False, dcn: Optional[dict] = None,
                 stage_with_dcn: Sequence[bool] = NO_DCN,
                 plugins: Optional[List[dict]] = None,
                 drop_path_rate: float = 0.0, contract_dilation: bool = False,
                 multi_grid: Optional[Sequence[int]] = None,
                 pretrained: Optional[str] = None,
                 width_per_group: Optional[int] = None,
                 se_ratio: Optional[int] = None) -> None:
        if pretrained is not None:
            init_cfg = _only(
                init_cfg=init_cfg,
                pretrained=dict(type='Pretrained', checkpoint=pretrained))
        super().__init__(DEFAULT_INIT if init_cfg is None else init_cfg)
        check_choice('depth', depth, tuple(self.architectures))
        check_choice('style', style, ('pytorch', 'caffe'))
        check_choice('num_stages', num_stages, (1, 2, 3, 4))
        check_choice('frozen_stages', frozen_stages, range(-1, num_stages + 1))
        for index in out_indices:
            check_choice('out_indices', index, range(num_stages))
        self.depth, self.num_stages, self.fuse = depth, num_stages, fuse
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.freeze_stem_act = freeze_stem_act
        self.norm_eval = norm_eval
        self.zero_init_residual = zero_init_residual
        self.deep_stem, self.avg_down, self.style = deep_stem, avg_down, style
        self.base_channels = base_channels
        self.stem_channels = stem_channels or base_channels
        self.strides = per_stage('strides', strides, STRIDES, num_stages)
        self.dilations = per_stage('dilations', dilations, DILATIONS,
                                   num_stages)
        self.conv_cfg, self.norm_cfg = conv_cfg, norm_cfg
        self.act_cfg = act_cfg
        self._add_stem(in_channels, self.stem_channels)
        width = _only(base_width=base_width, width_per_group=width_per_group)
        if groups > 1:
            width = (width or 4) * 64 / base_channels
        if se_ratio is not None and attention_cfg is not None:
            attention_cfg = dict(attention_cfg, reduction=se_ratio)
        self._add_stages(
            drop_path_rate, contract_dilation, multi_grid, plugins or (), dcn,
            per_stage('stage_with_dcn', stage_with_dcn, NO_DCN, num_stages),
            style=style, groups=groups, base_width=width or 64,
            expansion=expansion, with_cp=with_cp, conv_cfg=conv_cfg,
            norm_cfg=norm_cfg, act_cfg=act_cfg, attention_cfg=attention_cfg,
            fuse=fuse)
        self._freeze()

    def _conv(self, in_channels: int, out_channels: int, size: int,
              stride: int) -> nn.Module:
        return build_conv_layer(self.conv_cfg, in_channels, out_channels, size,
                                stride=stride, padding=size // 2, bias=False)

    def _sites(self, in_channels: int,
               *sites: Tuple[int, int]) -> List[nn.Module]:
        """Return a 3x3 convolution, norm and unit per (channels, stride)."""
        layers = []
        for channels, stride in sites:
            layers += [self._conv(in_channels, channels, 3, stride),
                       build_norm_layer(self.norm_cfg, channels)[1],
                       build_site_activation(self.act_cfg, channels)]
            in_channels = channels
        return layers

    def _add_stem(self, in_channels: int, channels: int) -> None:
        if self.deep_stem:
            half = channels // 2
            self.stem = nn.Sequential(*self._sites(
                in_channels, (half, 2), (half, 1), (channels, 1)))
        else:
            self._add_flat_stem(self._conv(in_channels, channels, 7, 2))
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    def _add_flat_stem(self, conv: nn.Module) -> None:
        """Add ``conv1`` with its norm and ``act1``."""
        self.conv1 = conv
        self.norm1_name, norm = build_norm_layer(
            self.norm_cfg, self.stem_channels, postfix=1)
        self.add_module(self.norm1_name, norm)
        self.act1 = build_site_activation(self.act_cfg, self.stem_channels)

    def _shortcut(self, in_channels: int, out_channels: int,
                  stride: int) -> Optional[nn.Sequential]:
        """Return the projection of a shortcut, or None if it is not needed.

        With ``avg_down`` a pooling takes the stride, or an identity stands in
        its place, so that the names stay those of mmdet.
        """
        if stride == 1 and in_channels == out_channels:
            return None
        pool: List[nn.Module] = []
        if self.avg_down:
            pool = [nn.Identity() if stride == 1 else nn.AvgPool2d(
                stride, ceil_mode=True, count_include_pad=False)]
            stride = 1
        return nn.Sequential(
            *pool, self._conv(in_channels, out_channels, 1, stride),
            build_norm_layer(self.norm_cfg, out_channels)[1])

    def _add_stages(self, drop_path_rate: float, contract: bool,
                    multi_grid: Optional[Sequence[int]],
                    plugins: Sequence[dict], dcn: Optional[dict],
                    stage_with_dcn: Sequence[bool], **shared: Any) -> None:
        block, counts = self.architectures[self.depth]
        rates = torch.linspace(
            0, drop_path_rate, sum(counts), device='cpu').tolist()
        self.stage_blocks = counts[:self.num_stages]
        self.res_layers = [f'layer{i + 1}' for i in range(self.num_stages)]
        channels = self.stem_channels
        for i, count in enumerate(self.stage_blocks):
            width = self.base_channels * 2**i
            out = width * (shared['expansion'] or block.expansion)
            settings = dict(shared, dcn=dcn if stage_with_dcn[i] else None,
                            plugins=stage_plugins(plugins, i, self.num_stages))
            # The first block has the stride and the projection.
            first = dict(stride=self.strides[i], downsample=self._shortcut(
                channels, out, self.strides[i]))
            blocks = []
            for dilation in stage_dilations(
                    count, self.dilations[i], contract,
                    multi_grid if i == self.num_stages - 1 else None):
                blocks.append(block(
                    channels, width, dilation=dilation,
                    drop_path_rate=rates.pop(0), **first, **settings))
                channels, first = out, {}
            self.add_module(self.res_layers[i], nn.Sequential(*blocks))
        self.feat_dim = channels

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """Return the outputs of the stages in ``out_indices``.

        ``x`` are images (N, in_channels, H, W). By default stage i has stride
        ``4 * 2**i``.
        """
        x = self.maxpool(self.stem(x) if self.deep_stem else self._stem(x))
        outs = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def _stem(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        if can_fuse(self.fuse, x, (self.norm1, self.act1)):
            return fused_norm_act(self.norm1, self.act1, x,
                                  may_overwrite(self.conv1))
        return self.act1(self.norm1(x))


def _only(**values: Any) -> Any:
    """Return the one value that is not None; None if there is none."""
    given = {name: v for name, v in values.items() if v is not None}
    if len(given) > 1:
        raise ValueError(f'set only one of {" and ".join(given)}')
    return next(iter(given.values()), None)
