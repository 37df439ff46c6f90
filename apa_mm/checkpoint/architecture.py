"""Read a ResNet's architecture off the names and shapes of its tensors."""
import re
from collections import Counter
from typing import Dict, Mapping, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn

from apa_mm.backbones import APAResNet, APAResNetCIFAR
from apa_mm.registry import MODELS
from apa_mm.weights import CheckpointError
from apa_mm.weights.errors import require

Shape = Tuple[int, ...]
_BLOCK = re.compile(r'(layer[1-9])\.(\d[^.]*)')
CIFAR = 'apa_mm.APAResNetCIFAR'
_GATES = {
    'apa': dict(type='apa_mm.APA'), 'sigmoid': dict(type='Sigmoid'),
    'apa-channels': dict(type='apa_mm.APA', num_parameters='channels')}


class Attention(NamedTuple):
    """Attention at the end of every block; a gate is a key of ``_GATES``."""

    kind: str  # 'se', 'cbam' or 'spatial'
    reduction: int = 1  # channels over hidden width; 1 for 'spatial'
    norm: bool = False  # whether the pooled vector is normalised
    bias: bool = False  # whether the linear layers have biases
    gate: str = 'sigmoid'
    spatial_gate: str = 'sigmoid'  # of CBAM's places

    def cfg(self) -> dict:
        """Return the ``attention_cfg`` that builds it."""
        kinds = dict(se='ChannelAttention', cbam='CBAM',
                     spatial='SpatialAttention')
        cbam = self.kind == 'cbam'
        cfg: dict = dict(type=f'apa_mm.{kinds[self.kind]}')
        if self.kind != 'spatial':
            if self.reduction != 16:
                cfg['reduction'] = self.reduction
            if not self.norm:
                # Every source without the norm is without the dropout too.
                cfg.update(norm_cfg=None, dropout=0.0)
            if self.bias != cbam:
                cfg['bias'] = self.bias
        if self.gate != 'apa':
            cfg['gate_cfg'] = dict(_GATES[self.gate])
        if cbam and self.spatial_gate != self.gate:
            cfg['spatial_gate_cfg'] = dict(_GATES[self.spatial_gate])
        return cfg


class Architecture(NamedTuple):
    """What a backbone config needs to build the network of a file."""

    type: str  # our class
    depth: int
    stages: Tuple[int, ...]  # blocks per stage
    bottleneck: bool
    in_channels: int = 3
    groups: int = 1
    base_width: int = 64  # per group
    deep_stem: bool = False
    units: str = 'aglu'  # or 'plain', 'aglu-channels'
    attention: Optional[Attention] = None
    style: str = 'pytorch'  # unless the source's code is known to differ
    avg_down: bool = True  # False for V1c, which has a deep stem

    def cfg(self) -> dict:
        """Return the backbone config that builds the network."""
        cfg: dict = dict(type=self.type, depth=self.depth)
        for key in ('in_channels', 'groups', 'base_width', 'style',
                    'avg_down'):
            if getattr(self, key) != self._field_defaults[key]:
                cfg[key] = getattr(self, key)
        if self.units == 'plain':
            cfg['act_cfg'] = dict(type='ReLU')
        elif self.units == 'aglu-channels':
            cfg['act_cfg'] = dict(
                type='apa_mm.AGLU', num_parameters='channels')
        usual = Attention('se', 4 if self.is_cifar else 16, True, gate='apa')
        if self.attention is None:
            cfg['attention_cfg'] = None
        elif self.attention != usual:
            cfg['attention_cfg'] = self.attention.cfg()
        return cfg

    @property
    def is_cifar(self) -> bool:
        """bool: Whether it is the small network."""
        return self.type == CIFAR

    @property
    def feat_dim(self) -> int:
        """int: Channels of the last stage."""
        return (64 if self.is_cifar else 512) * (4 if self.bottleneck else 1)

    def shapes(self) -> Dict[str, Shape]:
        """Return name and shape of every tensor of the backbone."""
        with torch.device('meta'):
            return shapes_of(MODELS.build(self.cfg()))


def shapes_of(model: nn.Module) -> Dict[str, Shape]:
    """Return name and shape of every tensor that a model saves."""
    return {k: tuple(v.shape) for k, v in model.state_dict().items()}


def read_architecture(tensors: Mapping[str, Tensor],
                      backbone_type: str = '') -> Architecture:
    """Read the architecture off a backbone's tensors under our names."""
    blocks = {match.groups() for match in map(_BLOCK.match, tensors) if match}
    stages = tuple(
        count for _, count in sorted(Counter(s for s, _ in blocks).items()))
    deep_stem = 'conv1.0.weight' in tensors
    stem = tensors.get('conv1.0.weight' if deep_stem else 'conv1.weight')
    require(stem is not None and stem.dim() == 4 and len(stages) > 0,
            'its backbone has no ResNet stem and stages; only ResNets can be '
            'converted by name')
    bottleneck = any(name.endswith('.conv3.weight') for name in tensors)
    cifar = len(stages) == 3 and stem.shape[0] == 16
    depth = _depth(stages, bottleneck, cifar)
    groups, base_width = _width(tensors) if bottleneck else (1, 64)
    kind = CIFAR if cifar else 'apa_mm.APAResNetD' if deep_stem else (
        backbone_type or 'apa_mm.APAResNet')
    legacy = kind.endswith('Legacy')
    require(bottleneck or not legacy,
            'legacy SE-ResNet-18 and -34 have an activation before their '
            'attention that no block here has; use a bottleneck network')
    return Architecture(
        kind, depth, stages, bottleneck, stem.shape[1], groups, base_width,
        deep_stem, _kind(tensors.get('act1.kappa'), 'plain', 'aglu'),
        _read_attention(tensors),
        style='caffe' if legacy and groups == 1 else 'pytorch',
        avg_down=not deep_stem or any(
            name.endswith('.downsample.2.weight') for name in tensors))


def _depth(stages: Tuple[int, ...], bottleneck: bool, cifar: bool) -> int:
    backbone = APAResNetCIFAR if cifar else APAResNet
    for depth, (block, counts) in backbone.architectures.items():
        if tuple(counts) == stages and (block.expansion == 4) == bottleneck:
            return depth
    raise CheckpointError(
        f'its stages have {stages} {"bottleneck" if bottleneck else "basic"} '
        f'blocks, which is no depth that {backbone.__name__} builds '
        f'({", ".join(map(str, backbone.architectures))})')


def _width(tensors: Mapping[str, Tensor]) -> Tuple[int, int]:
    """Return groups and base width of the first bottleneck."""
    first, second = (tensors.get(f'layer1.0.conv{j}.weight') for j in (1, 2))
    require(first is not None and second is not None
            and first.dim() == second.dim() == 4,
            'layer1.0 lacks its first two convolutions, or they have not four '
            'axes; the width of the network is read off them')
    groups = max(1, first.shape[0] // max(1, second.shape[1]))
    return groups, first.shape[0] // groups


def _kind(kappa: Optional[Tensor], without: str = 'sigmoid',
          shared: str = 'apa') -> str:
    if kappa is None:
        return without
    return shared if kappa.numel() == 1 else f'{shared}-channels'


def _read_attention(tensors: Mapping[str, Tensor]) -> Optional[Attention]:
    block = 'layer1.0.attention.'
    inside = {n.removeprefix(block): tensors[n]
              for n in tensors if n.startswith(block)}
    if not inside:
        return None
    if 'conv.weight' in inside:
        return Attention('spatial', gate=_kind(inside.get('gate.kappa')))
    cbam = 'spatial.conv.weight' in inside
    prefix = 'channel.' if cbam else ''
    return Attention(
        'cbam' if cbam else 'se', _reduction(tensors, prefix),
        norm=f'{prefix}norm.weight' in inside,
        bias=f'{prefix}fc1.bias' in inside,
        gate=_kind(inside.get(f'{prefix}gate.kappa')),
        spatial_gate=_kind(inside.get('spatial.gate.kappa')))


def _reduction(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """Return channels over hidden width, which all blocks share."""
    weights = (weight for name, weight in tensors.items()
               if name.endswith(f'.attention.{prefix}fc1.weight'))
    ratios = {w.shape[1] / max(1, w.shape[0]) for w in weights if w.dim() == 2}
    require(len(ratios) == 1 and min(ratios).is_integer(),
            'the hidden widths of its attention have no common reduction, but '
            f'{sorted(ratios)}; ChannelAttention takes one for all blocks')
    return int(ratios.pop())
