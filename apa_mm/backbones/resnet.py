"""ResNet with adaptive parametric activations and channel attention."""
from typing import Callable, Dict, List, Optional, Sequence, Tuple, Union

from mmcv.cnn import build_conv_layer, build_norm_layer
from mmengine.model import BaseModule, constant_init
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import Tensor, nn

from apa_mm.layers import build_site_activation, can_fuse, fused_norm_act
from apa_mm.registry import MODELS
from apa_mm.utils.checks import check_choice
from apa_mm.weights.pretrained import check_pretrained

from .resnet_blocks import ACT_CFG, ARCHITECTURES, NORM_CFG, build_shortcut

__all__ = ['APAResNet']

STEM_CHANNELS = 64
DEFAULT_INIT = [
    dict(type='Kaiming', layer='Conv2d'),
    dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
]


@MODELS.register_module()
class APAResNet(BaseModule):
    """ResNet or ResNeXt with AGLU units and APA* channel attention.

    With no argument but ``depth`` this is the paper's "APA* + AGLU" network;
    its ImageNet form with a 1000-way linear head has 28,102,314 parameters at
    depth 50. The class serves as backbone in MMDetection and MMPretrain and
    takes the arguments that their ResNet configs set, so that a child config
    may replace the ``type`` alone. Names of convolution, norm and shortcut
    tensors equal theirs and torchvision's.

    Differences from mmdet's ResNet: the activation is one module per site
    (stem ``act1``, blocks ``act1`` to ``act3``), since its parameters are
    learned; a frozen stage has all its parameters frozen, the stem's AGLU
    included, and is in eval mode as a whole, so that its dropout rests too.

    Args:
        depth (int): 18, 34, 50, 101 or 152.
        in_channels (int): Channels of the image.
        num_stages (int): Stages to build, 1 to 4.
        strides (Sequence[int]): Stride of each stage's first block.
        dilations (Sequence[int]): Dilation of each stage.
        out_indices (Sequence[int]): Stages to return, in rising order.
        style (str): 'pytorch' or 'caffe': which convolution of a bottleneck
            has the stride.
        groups (int): Groups of the 3x3 convolutions; 32 for ResNeXt 32x4d.
        base_width (int): Width per group; 4 for ResNeXt 32x4d.
        frozen_stages (int): -1 trains all, 0 freezes the stem, n the stem
            and the first n stages.
        freeze_stem_act (bool): Whether a frozen stem includes its AGLU. The
            authors' detection code leaves it trainable, so that the backward
            pass runs through every frozen stage for two numbers.
        conv_cfg (dict, optional): Convolution type.
        norm_cfg (dict): Norm type.
        norm_eval (bool): Keep BatchNorm in eval mode while training.
        act_cfg (dict): Any registered activation; every site gets its own
            module. ``num_parameters='channels'`` learns one value per
            channel.
        attention_cfg (dict, optional): Attention at the end of every block,
            by default APA*; None for a plain ResNet.
        with_cp (bool): Checkpoint the blocks to save memory.
        fuse (bool, optional): Join BatchNorm, attention, addition and AGLU,
            with the same results and state and less memory. True: wherever
            possible; False: never; None: where it was measured to be faster,
            float32 on the CPU. Modules with hooks are never joined.
        zero_init_residual (bool): Start the last norm of every block at 0.
            The paper's networks do not.
        init_cfg (dict | list[dict], optional): Initialisation; a
            ``Pretrained`` checkpoint that does not fit raises ValueError.

    Raises:
        ValueError: For a depth, stage count, index or style that does not
            exist, or a pretrained checkpoint of another architecture.

    Example:
        >>> import torch
        >>> model = APAResNet(depth=18)
        >>> [tuple(x.shape) for x in model(torch.rand(2, 3, 32, 32))]
        [(2, 64, 8, 8), (2, 128, 4, 4), (2, 256, 2, 2), (2, 512, 1, 1)]
    """

    #: depth -> (block class, blocks per stage)
    architectures: dict = ARCHITECTURES
    stem_channels: int = STEM_CHANNELS
    make_shortcut: Callable = staticmethod(build_shortcut)

    def __init__(self,
                 depth: int,
                 in_channels: int = 3,
                 num_stages: int = 4,
                 strides: Sequence[int] = (1, 2, 2, 2),
                 dilations: Sequence[int] = (1, 1, 1, 1),
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 style: str = 'pytorch',
                 groups: int = 1,
                 base_width: int = 64,
                 frozen_stages: int = -1,
                 freeze_stem_act: bool = True,
                 conv_cfg: Optional[dict] = None,
                 norm_cfg: dict = NORM_CFG,
                 norm_eval: bool = False,
                 act_cfg: dict = ACT_CFG,
                 attention_cfg: Optional[dict] = dict(
                     type='apa_mm.ChannelAttention'),
                 with_cp: bool = False,
                 fuse: Optional[bool] = None,
                 zero_init_residual: bool = False,
                 init_cfg: Optional[Union[dict, List[dict]]] = None) -> None:
        super().__init__(DEFAULT_INIT if init_cfg is None else init_cfg)
        check_choice('depth', depth, tuple(self.architectures))
        check_choice('style', style, ('pytorch', 'caffe'))
        check_choice('num_stages', num_stages, (1, 2, 3, 4))
        check_choice('frozen_stages', frozen_stages,
                     range(-1, num_stages + 1))
        for index in out_indices:
            check_choice('out_indices', index, range(num_stages))
        self.depth = depth
        self.fuse = fuse
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.freeze_stem_act = freeze_stem_act
        self.norm_eval = norm_eval
        self.zero_init_residual = zero_init_residual
        self._add_stem(in_channels, conv_cfg, norm_cfg, act_cfg)
        block, counts = self.architectures[depth]
        shared = dict(
            style=style,
            groups=groups,
            base_width=base_width,
            with_cp=with_cp,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            attention_cfg=attention_cfg,
            fuse=fuse)
        channels = self.stem_channels
        for i, (count, stride, dilation) in enumerate(
                zip(counts[:num_stages], strides, dilations, strict=False)):
            stage = _build_stage(block, channels, self.stem_channels * 2**i,
                                 count, stride, dilation, shared,
                                 self.make_shortcut)
            channels = stage[-1].out_channels
            self.add_module(f'layer{i + 1}', stage)
        self.feat_dim = channels
        self._freeze()

    def _add_stem(self, in_channels: int, conv_cfg: Optional[dict],
                  norm_cfg: dict, act_cfg: dict) -> None:
        self.conv1 = build_conv_layer(
            conv_cfg, in_channels, STEM_CHANNELS, 7, 2, padding=3, bias=False)
        self._norm1, norm = build_norm_layer(
            norm_cfg, STEM_CHANNELS, postfix=1)
        self.add_module(self._norm1, norm)
        self.act1 = build_site_activation(act_cfg, STEM_CHANNELS)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    @property
    def stages(self) -> List[nn.Sequential]:
        """The residual stages, in order."""
        return [
            module for name, module in self.named_children()
            if name.startswith('layer')
        ]

    def _frozen_modules(self) -> List[nn.Module]:
        if self.frozen_stages < 0:
            return []
        frozen = [self.conv1, getattr(self, self._norm1)]
        if self.freeze_stem_act:
            frozen.append(self.act1)
        return frozen + self.stages[:self.frozen_stages]

    def _freeze(self) -> None:
        for module in self._frozen_modules():
            module.eval()
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> 'APAResNet':
        """Set the mode; frozen stages and, if asked, norms stay in eval."""
        super().train(mode)
        if mode:
            self._freeze()
            if self.norm_eval:
                for module in self.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self

    def init_weights(self) -> None:
        """Initialise by ``init_cfg``; refuse a checkpoint that cannot fit.

        Raises:
            ValueError: If a ``Pretrained`` checkpoint is no state dict or
                belongs to another architecture.
        """
        check_pretrained(self)
        super().init_weights()
        if self.zero_init_residual and not _is_pretrained(self.init_cfg):
            for stage in self.stages:
                for block in stage:
                    constant_init(block.last_norm, 0)

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """Return the outputs of the stages in ``out_indices``.

        Args:
            x (Tensor): Images, (N, in_channels, H, W).

        Returns:
            tuple[Tensor]: Stage i has stride ``4 * 2**i`` by default.
        """
        x = self.conv1(x)
        norm = getattr(self, self._norm1)
        if can_fuse(self.fuse, x, norm, self.act1):
            x = fused_norm_act(norm, self.act1, x)
        else:
            x = self.act1(norm(x))
        x = self.maxpool(x)
        outs = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def get_layer_depth(self,
                        param_name: str,
                        prefix: str = '') -> Tuple[int, int]:
        """Return the layer id of a parameter for layer-wise decay.

        Args:
            param_name (str): Name of the parameter.
            prefix (str): Prefix of this backbone in the name.

        Returns:
            tuple[int, int]: Layer id (0 for the stem, counted by blocks) and
            the number of layers.
        """
        counts = [len(stage) for stage in self.stages]
        total = sum(counts) + 2
        parts = param_name[len(prefix):].split('.')
        if not param_name.startswith(prefix):
            return total - 1, total
        if not parts[0].startswith('layer'):
            return 0, total
        stage = int(parts[0][len('layer'):]) - 1
        return sum(counts[:stage]) + int(parts[1]) + 1, total


def _build_stage(block: type, in_channels: int, base_channels: int, count: int,
                 stride: int, dilation: int, shared: Dict[str, object],
                 make_shortcut: Callable) -> nn.Sequential:
    out_channels = base_channels * block.expansion
    shortcut = make_shortcut(in_channels, out_channels, stride,
                             shared['conv_cfg'], shared['norm_cfg'])
    blocks = [
        block(
            in_channels,
            base_channels,
            stride=stride,
            dilation=dilation,
            downsample=shortcut,
            **shared)
    ]
    blocks += [
        block(out_channels, base_channels, dilation=dilation, **shared)
        for _ in range(1, count)
    ]
    return nn.Sequential(*blocks)


def _is_pretrained(init_cfg: Optional[Union[dict, List[dict]]]) -> bool:
    cfgs = init_cfg if isinstance(init_cfg, list) else [init_cfg or {}]
    return any(cfg.get('type') == 'Pretrained' for cfg in cfgs)
