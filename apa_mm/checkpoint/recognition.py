"""Tell by its names which code a checkpoint comes from."""
from typing import Dict, Mapping, NamedTuple, Optional

from torch import Tensor

from apa_mm.weights.errors import CheckpointError
from .tables import TABLES, Table
from .templates import CHANGES, Rule, fill, match

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

    Args:
        tensors (Mapping[str, Tensor]): The state dict, without wrappers'
            prefixes.

    Returns:
        Names: The first table of :data:`~apa_mm.checkpoint.tables.TABLES`
        that has a mark in the names.

    Raises:
        CheckpointError: If no table has.

    Example:
        >>> import torch
        >>> recognise({'layer0.conv1.weight': torch.ones(1)}).table.name
        'timm-legacy'
    """
    prefixed = any(name.startswith(BACKBONE) for name in tensors)
    names = [_short(name) for name in tensors]
    for table in TABLES.values():
        if table.prefixed not in (None, prefixed):
            continue
        if not _any_match(table.marks, names):
            continue
        if not _any_match(table.foreign, names):
            return Names(table, prefixed)
    shown = ', '.join(list(tensors)[:3])
    raise CheckpointError(
        f'its {len(tensors)} names (such as {shown}) are those of no source '
        f'that is known here ({", ".join(TABLES)})')


def translate(name: str, source: Names) -> Optional[Place]:
    """Return our name for a name of the source.

    Args:
        name (str): Name in the source's state dict.
        source (Names): The source.

    Returns:
        Place | None: None if no rule of the source has such a name.
    """
    inside = name.startswith(BACKBONE)
    if inside or not source.prefixed:
        short = name[len(BACKBONE):] if inside else name
        for rule in source.table.backbone:
            fields = match(rule.source, short)
            if fields is not None:
                return Place(BACKBONE + fill(rule.target, fields), rule)
    if inside:
        return None
    for rule in source.table.others:
        fields = match(rule.source, name)
        if fields is not None:
            return Place(fill(rule.target, fields), rule)
    return None


def translate_back(name: str, source: Names) -> Optional[Place]:
    """Return the source's name for one of ours, or None if it has none."""
    inside = name.startswith(BACKBONE)
    rules = source.table.backbone if inside else source.table.others
    short = name[len(BACKBONE):] if inside else name
    for rule in rules:
        fields = match(rule.target, short)
        if fields is not None:
            prefix = BACKBONE if inside and source.prefixed else ''
            return Place(prefix + fill(rule.source, fields), rule)
    return None


def change(value: Tensor, rule: Rule, back: bool = False) -> Tensor:
    """Return the tensor in the shape that the other side has."""
    both = CHANGES[rule.change]
    return both.backward(value) if back else both.forward(value)


def strip_backbone(tensors: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """Return the backbone's tensors without its prefix."""
    return {
        _short(name): value
        for name, value in tensors.items() if name.startswith(BACKBONE)
    }


def _short(name: str) -> str:
    return name[len(BACKBONE):] if name.startswith(BACKBONE) else name


def _any_match(templates: tuple, names: list) -> bool:
    return any(
        match(template, name) is not None for template in templates
        for name in names)
