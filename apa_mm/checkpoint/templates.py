"""Names with fields, such as ``layer{s}.{b}.conv{j}.{x}``, and rules.

``{x}`` stands for a leaf name (letters and underscores), ``{path}`` for any
number of parts, every other field for a number.
"""
import re
from functools import lru_cache
from typing import Callable, Dict, NamedTuple, Pattern, Sequence

from torch import Tensor

__all__ = ['CHANGES', 'Change', 'Rule', 'any_of', 'pattern_of']

_FIELDS = {'x': '[A-Za-z_]+', 'path': '.+'}


def _expression(template: str, named: bool) -> str:
    parts = re.split(r'\{(\w+)\}', template)
    return ''.join(
        re.escape(part) if i % 2 == 0 else
        f'({f"?P<{part}>" if named else "?:"}{_FIELDS.get(part, "[0-9]+")})'
        for i, part in enumerate(parts))


@lru_cache(maxsize=None)
def pattern_of(template: str) -> Pattern:
    """Return the expression that finds the fields of a name.

    Example:
        >>> pattern = pattern_of('layer{s}.{b}.conv{j}.{x}')
        >>> pattern.fullmatch('layer1.0.conv2.weight').groupdict()
        {'s': '1', 'b': '0', 'j': '2', 'x': 'weight'}
    """
    return re.compile(_expression(template, named=True))


@lru_cache(maxsize=None)
def any_of(templates: Sequence[str]) -> Pattern:
    """Return an expression that finds a name of any form among lines."""
    forms = '|'.join(_expression(t, named=False) for t in templates)
    return re.compile(f'^(?:{forms or "(?!)"})$', re.MULTILINE)


class Change(NamedTuple):
    """A change of shape that loses nothing.

    Attributes:
        forward (Callable): From the source's shape to ours.
        backward (Callable): From ours to the source's.
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor], Tensor]


def _flatten(value: Tensor) -> Tensor:
    return value.reshape(-1)


def _unflatten(value: Tensor) -> Tensor:
    # One value is (1,) in every source, C values are (1, C, 1, 1).
    return value if value.numel() == 1 else value.reshape(1, -1, 1, 1)


def _drop_kernel(value: Tensor) -> Tensor:
    one_by_one = value.dim() == 4 and value.shape[2:] == (1, 1)
    return value.flatten(1) if one_by_one else value


def _add_kernel(value: Tensor) -> Tensor:
    return value[:, :, None, None] if value.dim() == 2 else value


def _swap_inputs(value: Tensor) -> Tensor:
    return value.flip(1)


def _to_scalar(value: Tensor) -> Tensor:
    return value.reshape(()) if value.numel() == 1 else value


def _to_vector(value: Tensor) -> Tensor:
    return value.reshape(1)


#: flat: kappa and lambda; linear: a 1x1 convolution as a linear layer; swap:
#: CBAM's spatial convolution on [mean, max] instead of [max, mean]; scalar: a
#: temperature of shape (1,). Without a change a tensor stays as it is.
CHANGES: Dict[str, Change] = {
    'flat': Change(_flatten, _unflatten),
    'linear': Change(_drop_kernel, _add_kernel),
    'swap': Change(_swap_inputs, _swap_inputs),
    'scalar': Change(_to_scalar, _to_vector),
}


class Rule(NamedTuple):
    """A name of the source, our name for it, and what its values need.

    Attributes:
        source (str): Template of the source's name.
        target (str): Template of ours, with the same fields.
        change (str): Key of :data:`CHANGES`, or ''.
    """

    source: str
    target: str
    change: str = ''
