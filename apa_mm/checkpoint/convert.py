"""Conversion of state dicts: pure functions, no files."""
from typing import Dict, Mapping, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from apa_mm.utils.checks import check_choice
from apa_mm.weights import CheckpointError
from apa_mm.weights.errors import require

from .architecture import Architecture, Shape, read_architecture
from .contents import Facts
from .expected import detector_shapes, head_shapes
from .notes import notes_of, num_rows
from .recognition import (BACKBONE, Names, recognise, strip_backbone,
                          translate)
from .report import LoadReport
from .values import Start, starting_values

#: Parts that a target takes, by the first part of our names.
_PARTS = {
    'mmpretrain': ('backbone', 'head'),
    'mmdet-backbone': ('backbone', ),
    'mmdet': ('backbone', 'neck', 'rpn_head', 'roi_head')}
TARGETS = tuple(_PARTS)


class Conversion(NamedTuple):
    """Result of :func:`convert`."""

    tensors: Dict[str, Tensor]  # under the target's names
    report: LoadReport
    source: Names
    architecture: Optional[Architecture]  # of a ResNet backbone
    head: Optional[str]  # kind of the classifier


def convert(tensors: Mapping[str, Tensor], to: str, facts: Facts = Facts(),
            start: Start = Start()) -> Conversion:
    """Convert a state dict of any known source.

    Args:
        tensors (Mapping[str, Tensor]): The source's state dict, without
            wrappers' prefixes; it is not changed.
        to (str): 'mmpretrain' for a classifier, 'mmdet-backbone' for
            ``init_cfg=dict(type='Pretrained')`` of a backbone, 'mmdet' for a
            whole detector.
        facts (Facts): What else the file says.
        start (Start): Values of kappa and lambda where the source has none.

    Returns:
        Conversion: Missing and unexpected tensors are in its report and raise
        nothing.

    Raises:
        CheckpointError: If the source is unknown, its backbone cannot be
            built here, or two of its tensors would get one name.

    Example:
        >>> from torchvision.models import resnet18
        >>> result = convert(resnet18().state_dict(), 'mmpretrain')
        >>> len(result.tensors), result.report.ok
        (156, True)
    """
    check_choice('to', to, TARGETS)
    source = recognise(tensors)
    report = LoadReport(source.table.name, to)
    ours = _rename(tensors, source, report)
    architecture = _architecture(ours, source)
    head = _settle_head(ours, facts, architecture, report)
    wanted: Dict[str, Shape] = {}
    if architecture is not None:
        architecture, wanted = _complete(ours, architecture, source, start,
                                         report)
    require(to != 'mmdet' or any(
        not name.startswith((BACKBONE, 'head.')) for name in ours),
            'it holds a classifier or backbone and no detector; use --to '
            'mmdet-backbone')
    _cut(ours, to, report)
    if architecture is not None:
        _compare(ours, wanted, to, architecture, head, source, report)
        ours = {n: v for n, v in ours.items() if n not in report.mismatched}
    report.notes += notes_of(source, architecture, head, facts, ours, to)
    if to == 'mmdet-backbone':
        ours = strip_backbone(ours)
        report.strip(BACKBONE)
    return Conversion(ours, report, source, architecture, head)


def _rename(tensors: Mapping[str, Tensor], source: Names,
            report: LoadReport) -> Dict[str, Tensor]:
    ours: Dict[str, Tensor] = {}
    for name, value in tensors.items():
        place = translate(name, value, source)
        if place is None:
            report.unexpected.append(name)
            continue
        new, changed = place
        if new in ours:
            raise CheckpointError(
                f'{name} and {report.origins[new]} would both become {new}; '
                'the file holds two networks or one twice, so keep one')
        if changed.shape != value.shape:
            report.reshaped[new] = tuple(value.shape), tuple(changed.shape)
        ours[new] = changed
        report.mapped[name] = new
    return ours


def _settle_head(ours: Dict[str, Tensor], facts: Facts,
                 architecture: Optional[Architecture], report: LoadReport
                 ) -> Optional[str]:
    """Find the kind of the classifier; turn the authors' transposed one."""
    kind, name = head_kind(ours, architecture), 'head.fc.weight'
    if kind == 'norm':
        old = tuple(ours[name].shape)
        ours[name] = ours[name].t()
        report.reshaped[name] = old, old[::-1]
        if 'head.fc.bias' in ours:
            _drop(ours, 'head.fc.bias', report, report.origins,
                  'bias that the normalised classifier never uses')
    return 'inv' if kind == 'linear' and facts.head == 'inv' else kind


def head_kind(tensors: Mapping[str, Tensor],
              architecture: Optional[Architecture]) -> Optional[str]:
    """Return what classifier our names tell of; 'norm' is transposed."""
    weight = tensors.get('head.fc.weight')
    if weight is None:
        return None
    features = None if architecture is None else architecture.feat_dim
    if weight.dim() == 2 and features == weight.shape[0] != weight.shape[1]:
        return 'norm'
    if 'head.fc.temperature' in tensors:
        return 'lr_cosine'
    return 'linear' if 'head.fc.bias' in tensors else 'cosine'


def _architecture(ours: Mapping[str, Tensor],
                  source: Names) -> Optional[Architecture]:
    backbone = strip_backbone(ours)
    try:
        return read_architecture(backbone, source.table.backbone_type)
    except CheckpointError:
        # Networks of other makes pass under their own names.
        if source.table.name in ('apa_mm', 'ultralytics') and not any(
                name.startswith('layer1.') for name in backbone):
            return None
        raise


def _complete(ours: Dict[str, Tensor], architecture: Architecture,
              source: Names, start: Start, report: LoadReport
              ) -> Tuple[Architecture, Dict[str, Shape]]:
    """Add what is lacking; return the architecture then, and its shapes."""
    adaptive = architecture
    learned = '.kappa', '.lambd'
    # Our own networks without kappa and lambda are so on purpose.
    if not (any(name.endswith(learned) for name in ours)
            or start.init == 'plain' or source.table.name == 'apa_mm'):
        attention = architecture.attention
        if attention is not None:
            spatial = 'apa' if attention.kind == 'cbam' else 'sigmoid'
            attention = attention._replace(gate='apa', spatial_gate=spatial)
        adaptive = architecture._replace(units='aglu', attention=attention)
    wanted = {BACKBONE + n: shape for n, shape in adaptive.shapes().items()}
    for name, shape in wanted.items():
        if name.endswith('num_batches_tracked') and name not in ours:
            ours[name] = torch.zeros(shape, dtype=torch.int64)
            report.added[name] = (
                'num_batches_tracked = 0, which old files do not have')
    if adaptive != architecture:
        values, note = starting_values(
            {n: shape for n, shape in wanted.items() if n.endswith(learned)},
            start)
        ours.update(values)
        reason = 'kappa and lambda, ' + (
            'random' if start.init == 'random' else
            f'equal to {start.act} (units) and sigmoid (gates)')
        report.added.update(dict.fromkeys(values, reason))
        report.notes.append(note)
    return adaptive, wanted


def _cut(ours: Dict[str, Tensor], to: str, report: LoadReport) -> None:
    parts = _PARTS[to]
    if any(name.startswith('head.') for name in ours):
        parts += ('neck', )  # a classifier's, not a detector's
    origins = report.origins
    for name in list(ours):
        part = name.split('.')[0]
        known = part in ('backbone', 'neck', 'head', 'rpn_head', 'roi_head')
        # A detector may have parts of any name, other targets have not.
        if part not in parts and (known or to != 'mmdet'):
            _drop(ours, name, report, origins,
                  f'{part} is not part of --to {to}')


def _drop(ours: Dict[str, Tensor], name: str, report: LoadReport,
          origins: Mapping[str, str], reason: str) -> None:
    del ours[name]
    report.reshaped.pop(name, None)
    report.added.pop(name, None)
    if name in origins:
        del report.mapped[origins[name]]
        report.dropped[origins[name]] = reason


def _compare(ours: Mapping[str, Tensor], wanted: Dict[str, Shape], to: str,
             architecture: Architecture, head: Optional[str], source: Names,
             report: LoadReport) -> None:
    """Hold the tensors against those of the network they describe."""
    checked = ['backbone']
    if to == 'mmpretrain' and source.table.name != 'apa_mm':
        wanted.update(head_shapes(head or 'linear', num_rows(ours) or 1,
                                  architecture.feat_dim))
        checked.append('head')
    elif to == 'mmdet' and source.table.name == 'authors-detection':
        whole = detector_shapes(ours, architecture)
        if whole is None:
            report.notes.append('without mmdet only the backbone was checked '
                                'tensor by tensor')
        else:
            wanted.update(whole)
            checked += ['neck', 'rpn_head', 'roi_head']
    report.missing += [name for name in wanted if name not in ours]
    origins = report.origins
    for name, value in ours.items():
        if name not in wanted:
            if name.split('.')[0] in checked:
                report.unexpected.append(origins.get(name, name))
        elif tuple(value.shape) != wanted[name]:
            report.mismatched[name] = tuple(value.shape), wanted[name]
