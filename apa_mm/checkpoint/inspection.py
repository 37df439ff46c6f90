"""Say what a checkpoint is, and what its kappa and lambda are."""
from typing import List, Mapping, NamedTuple, Optional

from torch import Tensor

from apa_mm.layers.pairs import Pair, parameter_pairs
from apa_mm.utils.tables import text_table
from apa_mm.weights import CheckpointError, read_checkpoint
from apa_mm.weights.errors import printable
from apa_mm.weights.load_check import counted

from .architecture import Architecture, read_architecture
from .contents import Facts, check_finite, find_weights
from .convert import head_kind
from .notes import class_order
from .recognition import Names, recognise, strip_backbone, translate

_HEADS = dict(linear='linear', cosine='cosine', norm='normalised',
              lr_cosine='cosine with learned scale')


class Inspection(NamedTuple):
    """What is known of a file."""

    path: str
    num_bytes: int
    sha256: str
    num_tensors: int
    num_parameters: int  # without counters and running statistics
    source: Optional[Names]  # whose code it is of; None if unknown
    architecture: Optional[Architecture]  # of a ResNet backbone
    head: str  # the classifier or detector, in words
    facts: Facts
    pairs: List[Pair]  # kappa and lambda, in the network's order
    broken: List[str]  # tensors with NaN or infinity
    notes: List[str]  # what could not be told

    @property
    def dead(self) -> List[str]:
        """list[str]: Pairs whose lambda gets no gradient in the source."""
        clamp = self.source.table.unit_clamp if self.source else 'floor'
        return [p.name for p in self.pairs
                if p.dead(clamp if p.kind == 'unit' else 'floor')]

    def __str__(self) -> str:
        source = self.source.table.title if self.source else 'unknown'
        if isinstance(self.facts.meta.get('source_sha256'), str):
            source += (f", converted from {self.facts.meta.get('source')} "
                       f"({self.facts.meta['source_sha256'][:8]})")
        units = sum(pair.kind == 'unit' for pair in self.pairs)
        facts = {
            'size': f'{self.num_bytes:,} bytes, sha256 {self.sha256[:8]}',
            'source': source,
            'architecture': _describe(self.architecture),
            'head': self.head,
            'state dict': f'{self.num_tensors} tensors, '
                          f'{self.num_parameters:,} parameters',
            'kappa/lambda': f'{len(self.pairs)} pairs ({units} units, '
                            f'{len(self.pairs) - units} gates)',
            'dead lambdas': counted(self.dead, 'none'),
            'NaN or inf': counted(self.broken, 'none')}
        lines = [self.path, *(f'  {k:12}  {v}' for k, v in facts.items()),
                 *(f'  note: {note}' for note in self.notes)]
        return '\n'.join(map(printable, lines))

    def table(self) -> str:
        """Return kappa and lambda per layer as a table."""
        if not self.pairs:
            return 'no kappa and lambda in this file'
        dead = set(self.dead)
        return text_table(
            ['layer', 'kind', 'kappa', 'lambda', 'state'],
            [[printable(p.name), p.kind, _value(p.kappa), _value(p.lambd),
              'dead' if p.name in dead else ''] for p in self.pairs])


def inspect_file(path: str, averaged: bool = False) -> Inspection:
    """Read a file and say what it is, be it unknown or full of NaN.

    ``averaged`` looks at the moving average of the weights.

    Raises:
        CheckpointError: If it cannot be read or holds no state dict.
    """
    raw = read_checkpoint(path)
    try:
        weights = find_weights(raw.content, averaged, raw.metadata)
    except CheckpointError as error:
        raise CheckpointError(f'{path} cannot be used: {error}') from None
    ours = tensors = weights.tensors
    notes: List[str] = []
    source: Optional[Names] = None
    architecture: Optional[Architecture] = None
    try:
        source = recognise(tensors)
        ours = dict(
            translate(name, value, source) or (name, value)
            for name, value in tensors.items())
        architecture = read_architecture(
            strip_backbone(ours), source.table.backbone_type)
    except CheckpointError as error:
        notes.append(str(error))
    pairs = parameter_pairs(ours)
    if source is not None and source.table.name == 'ultralytics':
        # Its class named AGLU is the gate alone.
        pairs = [pair._replace(kind='gate') for pair in pairs]
    weight = ours.get('head.fc.weight')
    if source is not None and weight is not None and weight.dim():
        rows = max(weight.shape) if architecture is None else (
            weight.numel() // max(1, architecture.feat_dim))
        order, note = class_order(source, weights.facts, rows)
        notes.append(note or f'class order: {order}')
    counters = 'running_mean', 'running_var', 'num_batches_tracked'
    num_parameters = sum(v.numel() for name, v in tensors.items()
                         if not name.endswith(counters))
    return Inspection(
        raw.path, raw.num_bytes, raw.sha256, len(tensors), num_parameters,
        source, architecture, _head(ours, architecture), weights.facts, pairs,
        check_finite(tensors), notes)


def _head(ours: Mapping[str, Tensor],
          architecture: Optional[Architecture]) -> str:
    weight = ours.get('head.fc.weight')
    if weight is not None and weight.dim() == 2:
        kind = head_kind(ours, architecture)
        return (f'{_HEADS[kind]} classifier, '
                f'{weight.shape[kind == "norm"]} classes')
    names = ' '.join(ours)
    if 'roi_head.' not in names:
        return 'none'
    parts = ['Cascade R-CNN' if 'bbox_head.0.' in names else (
        'Mask R-CNN' if 'mask_head.' in names else 'Faster R-CNN')]
    scores = next((v for n, v in ours.items()
                   if n.endswith('fc_cls.weight')), None)
    if scores is not None and scores.dim():
        parts.append(f'{len(scores)} scores')
    marks = {'.fc_cls.g': 'wrapped Cauchy',
             'conv_logits.temperature': 'learned mask temperature',
             'channel_compressor': 'CARAFE'}
    parts += [words for mark, words in marks.items() if mark in names]
    return ', '.join(parts)


def _describe(architecture: Optional[Architecture]) -> str:
    if architecture is None:
        return 'no ResNet that is known here'
    name = 'ResNeXt' if architecture.groups > 1 else 'ResNet'
    deep = '-D' * architecture.deep_stem
    units = 'no AGLU' if architecture.units == 'plain' else 'AGLU'
    text = f'{name}-{architecture.depth}{deep}, {units} units, '
    attention = architecture.attention
    if attention is None:
        return f'{text}no attention'
    details = [attention.gate if attention.kind != 'cbam' else
               f'{attention.gate} and {attention.spatial_gate} gates']
    if attention.reduction > 1:
        details.append(f'reduction {attention.reduction}')
    details += ['LayerNorm'] * attention.norm + ['biases'] * attention.bias
    word = dict(se='SE', cbam='CBAM', spatial='spatial')[attention.kind]
    return f'{text}{word} attention ({", ".join(details)})'


def _value(values: Tensor) -> str:
    """Return a number, or the range of several."""
    if values.numel() == 1:
        return f'{values.item():.5f}'
    if values.numel() == 0:
        return 'empty'
    return f'{values.min().item():.4f}..{values.max().item():.4f}'
