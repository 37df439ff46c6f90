"""Tell by its names which code a checkpoint comes from, and translate them."""
import re
from functools import lru_cache
from typing import (Callable, Dict, Mapping, NamedTuple, Optional, Pattern,
                    Sequence, Tuple)

from torch import Tensor

from apa_mm.weights import CheckpointError

from .tables import TABLES, Table

BACKBONE = 'backbone.'
_FIELDS = {'x': '[A-Za-z_]+', 'path': '.+'}


def _flatten_kernel(value: Tensor) -> Tensor:
    one_by_one = value.dim() == 4 and value.shape[2:] == (1, 1)
    return value.flatten(1) if one_by_one else value


#: Changes of shape that lose nothing, from the source to us and back. flat:
#: kappa and lambda; linear: a 1x1 convolution as a linear layer; swap: CBAM's
#: spatial convolution on [mean, max] instead of [max, mean]; scalar: a
#: temperature of shape (1,).
CHANGES: Dict[str, Tuple[Callable, Callable]] = {
    'flat': (
        lambda value: value.reshape(-1),
        # One value is (1,) in every source, C values are (1, C, 1, 1).
        lambda value: value
        if value.numel() == 1 else value.reshape(1, -1, 1, 1)),
    'linear': (
        _flatten_kernel,
        lambda value: value[:, :, None, None] if value.dim() == 2 else value),
    'swap': (lambda value: value.flip(1), lambda value: value.flip(1)),
    'scalar': (
        lambda value: value.reshape(()) if value.numel() == 1 else value,
        lambda value: value.reshape(1)),
    '': (lambda value: value, lambda value: value),
}


class Names(NamedTuple):
    """A source, and whether its backbone's names start with ``backbone.``."""

    table: Table
    prefixed: bool


def _expression(template: str, named: bool) -> str:
    parts = re.split(r'\{(\w+)\}', template)
    return ''.join(
        re.escape(part) if i % 2 == 0 else
        f'({f"?P<{part}>" if named else "?:"}{_FIELDS.get(part, "[0-9]+")})'
        for i, part in enumerate(parts))


@lru_cache(maxsize=None)
def _pattern_of(template: str) -> Pattern:
    """Return the expression that finds the fields of a name."""
    return re.compile(_expression(template, named=True))


def _any_of(templates: Sequence[str], lines: str) -> bool:
    """Return whether some line is a name of any of the forms."""
    forms = '|'.join(_expression(t, named=False) for t in templates)
    return bool(templates) and re.search(
        f'^(?:{forms})$', lines, re.MULTILINE) is not None


def recognise(tensors: Mapping[str, Tensor]) -> Names:
    """Return the source of a state dict, judged by its names alone.

    Raises:
        CheckpointError: If they are those of no known source.

    Example:
        >>> import torch
        >>> recognise({'layer0.conv1.weight': torch.ones(1)}).table.name
        'timm-legacy'
    """
    prefixed = any(name.startswith(BACKBONE) for name in tensors)
    lines = '\n'.join(name.removeprefix(BACKBONE) for name in tensors)
    for table in TABLES.values():
        if (table.prefixed in (None, prefixed) and _any_of(table.marks, lines)
                and not _any_of(table.foreign, lines)):
            return Names(table, prefixed)
    shown = ', '.join(list(tensors)[:3])
    raise CheckpointError(
        f'its {len(tensors)} names (such as {shown}) are those of no source '
        f'that is known here ({", ".join(TABLES)})')


def translate(name: str, value: Tensor, source: Names, back: bool = False
              ) -> Optional[Tuple[str, Tensor]]:
    """Give a tensor our name and shape, or the source's again.

    None for a name that no rule has.
    """
    inside = name.startswith(BACKBONE)
    places = []  # rules, the name that they know, and what goes before it
    if inside or not (source.prefixed or back):
        places.append((source.table.backbone, name.removeprefix(BACKBONE),
                       BACKBONE if source.prefixed or not back else ''))
    if not inside:
        places.append((source.table.others, name, ''))
    for rules, short, prefix in places:
        for rule in rules:
            found = _pattern_of(rule[back]).fullmatch(short)
            if found is not None:
                new = rule[not back].format(**found.groupdict())
                return prefix + new, CHANGES[rule.change][back](value)
    return None


def strip_backbone(tensors: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """Return the backbone's tensors without its prefix."""
    return {
        name.removeprefix(BACKBONE): value
        for name, value in tensors.items() if name.startswith(BACKBONE)
    }
