"""Argument checks that several parts share; each raises one clear error."""
from typing import Any, Sequence


class InputError(ValueError):
    """Input that a job cannot run with; one sentence per problem."""


def check_choice(name: str, value: Any, choices: Sequence) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(
            f'{name} must be one of {tuple(choices)}, but got {value!r}')


def check_range(name: str, value: Any) -> tuple:
    """Return ``(low, high)`` for a number or a pair of ascending numbers."""
    pair = (value, value) if isinstance(value, (int, float)) else value
    try:
        low, high = (float(v) for v in pair)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not low <= high:
        raise ValueError(f'{name} must be a number or a pair (low, high) with '
                         f'low <= high, but got {value!r}')
    return low, high
