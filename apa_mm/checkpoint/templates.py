"""Names with fields, such as ``layer{s}.{b}.conv{j}.{x}``, and rules.

``{x}`` stands for a leaf name (letters and underscores), ``{path}`` for any
number of parts, every other field for a number.
"""
import re
from functools import lru_cache
from typing import Callable, Dict, NamedTuple, Optional, Pattern

from torch import Tensor

__all__ = ['CHANGES', 'Change', 'Rule', 'fill', 'match']

_FIELDS = {'x': '[A-Za-z_]+', 'path': '.+'}


@lru_cache(maxsize=None)
def _compiled(template: str) -> Pattern:
    parts = re.split(r'\{(\w+)\}', template)
    text = ''.join(
        re.escape(part) if i % 2 == 0 else
        f'(?P<{part}>{_FIELDS.get(part, "[0-9]+")})'
        for i, part in enumerate(parts))
    return re.compile(text)


def match(template: str, name: str) -> Optional[Dict[str, str]]:
    """Return the fields of a name that has the template's form, or None.

    Example:
        >>> match('layer{s}.{b}.conv{j}.{x}', 'layer1.0.conv2.weight')
        {'s': '1', 'b': '0', 'j': '2', 'x': 'weight'}
    """
    found = _compiled(template).fullmatch(name)
    return None if found is None else found.groupdict()


def fill(template: str, fields: Dict[str, str]) -> str:
    """Return the template with its fields filled in.

    Example:
        >>> fill('act{j}.kappa', {'j': '2'})
        'act2.kappa'
    """
    return template.format(**fields)


class Change(NamedTuple):
    """A change of shape that loses nothing.

    Attributes:
        forward (Callable): From the source's shape to ours.
        backward (Callable): From ours to the source's.
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor], Tensor]


def _same(value: Tensor) -> Tensor:
    return value


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
#: temperature of shape (1,).
CHANGES: Dict[str, Change] = {
    'same': Change(_same, _same),
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
        change (str): Key of :data:`CHANGES`.
    """

    source: str
    target: str
    change: str = 'same'
