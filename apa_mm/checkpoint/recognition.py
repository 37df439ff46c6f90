"""Tell by its names which code a checkpoint comes from."""
from typing import Dict, Mapping, NamedTuple, Optional, Tuple

from torch import Tensor

from apa_mm.weights import CheckpointError

from .tables import TABLES, Table
from .templates import CHANGES, Rule, any_of, pattern_of

__all__ = ['Names', 'recognise', 'translate']

BACKBONE = 'backbone.'


class Names(NamedTuple):
    """A source, and whether its backbone has a prefix.

    Attributes:
        table (Table): The source's key table.
        prefixed (bool): Whether names of the backbone start with
            ``backbone.``.
    """

    table: Table
    prefixed: bool


class Place(NamedTuple):
    """Where a tensor belongs, by our names.

    Attributes:
        name (str): Our name, with ``backbone.`` where it is of the backbone.
        rule (Rule): The rule that said so.
    """

    name: str
    rule: Rule


def recognise(tensors: Mapping[str, Tensor]) -> Names:
    """Return the source of a state dict, judged by its names alone.

    Example:
        >>> import torch
        >>> recognise({'layer0.conv1.weight': torch.ones(1)}).table.name
        'timm-legacy'
    """
    prefixed = any(name.startswith(BACKBONE) for name in tensors)
    lines = '\n'.join(name.removeprefix(BACKBONE) for name in tensors)
    for table in TABLES.values():
        if (table.prefixed in (None, prefixed)
                and any_of(table.marks).search(lines)
                and not any_of(table.foreign).search(lines)):
            return Names(table, prefixed)
    shown = ', '.join(list(tensors)[:3])
    raise CheckpointError(
        f'its {len(tensors)} names (such as {shown}) are those of no source '
        f'that is known here ({", ".join(TABLES)})')


def translate(name: str, source: Names,
              back: bool = False) -> Optional[Place]:
    """Return our name for a name of the source, or the other way round."""
    inside = name.startswith(BACKBONE)
    if inside or not (source.prefixed or back):
        short = name.removeprefix(BACKBONE)
        prefix = BACKBONE if source.prefixed or not back else ''
        place = _apply(source.table.backbone, short, prefix, back)
        if place is not None or inside:
            return place
    return _apply(source.table.others, name, '', back)


def _apply(rules: Tuple[Rule, ...], name: str, prefix: str,
           back: bool) -> Optional[Place]:
    old, new = (1, 0) if back else (0, 1)
    for rule in rules:
        found = pattern_of(rule[old]).fullmatch(name)
        if found is not None:
            return Place(prefix + rule[new].format(**found.groupdict()), rule)
    return None


def change(value: Tensor, rule: Rule, back: bool = False) -> Tensor:
    """Return the tensor in the shape that the other side has."""
    return CHANGES[rule.change][back](value) if rule.change else value


def strip_backbone(tensors: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """Return the backbone's tensors without its prefix."""
    return {
        name.removeprefix(BACKBONE): value
        for name, value in tensors.items() if name.startswith(BACKBONE)
    }
