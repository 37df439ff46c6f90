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

#: Changes of shape that lose nothing, from the source to us and back. flat:
#: kappa and lambda; linear: a 1x1 convolution as a linear layer; swap: CBAM's
#: spatial convolution on [mean, max] instead of [max, mean]; scalar: a
#: temperature of shape (1,).
CHANGES: Dict[str, Tuple[Callable, Callable]] = {
    'flat': (  # One value is (1,) in every source, C values are (1, C, 1, 1).
        lambda v: v.reshape(-1),
        lambda v: v if v.numel() == 1 else v.reshape(1, -1, 1, 1)),
    'linear': (
        lambda v: v.flatten(1) if v.shape[2:] == (1, 1) else v,
        lambda v: v[:, :, None, None] if v.dim() == 2 else v),
    'swap': (lambda v: v.flip(1), lambda v: v.flip(1)),
    'scalar': (
        lambda v: v.reshape(()) if v.numel() == 1 else v,
        lambda v: v.reshape(1)),
    '': (lambda v: v, lambda v: v),
}


class Names(NamedTuple):
    """A source, and whether its backbone's names start with ``backbone.``."""

    table: Table
    prefixed: bool


@lru_cache(maxsize=None)
def _pattern_of(template: str) -> Pattern:
    """Return the expression that finds the fields of a name."""
    parts = re.split(r'\{(\w+)\}', template)
    return re.compile(''.join(
        re.escape(part) if i % 2 == 0 else
        f'(?P<{part}>{_FIELDS.get(part, "[0-9]+")})'
        for i, part in enumerate(parts)))


def _any_of(templates: Sequence[str], names: Sequence[str]) -> bool:
    """Return whether some name is of any of the forms."""
    return any(_pattern_of(template).fullmatch(name)
               for template in templates for name in names)


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
    names = [name.removeprefix(BACKBONE) for name in tensors]
    for table in TABLES.values():
        if (table.prefixed in (None, prefixed) and _any_of(table.marks, names)
                and not _any_of(table.foreign, names)):
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
    return {name.removeprefix(BACKBONE): value
            for name, value in tensors.items() if name.startswith(BACKBONE)}
