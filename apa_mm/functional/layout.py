"""How the compiled forms walk a tensor without copying it."""
from typing import NamedTuple, Optional

import torch
from torch import Tensor

__all__ = ['DTYPES', 'Layout', 'find_layout']

#: Element types of the compiled forms, with their numbers in C++.
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


class Layout(NamedTuple):
    """How a tensor is walked: see the header of ``apa_cpu.cpp``.

    Attributes:
        rows (int): Rows of ``inner`` elements, or of ``channels`` elements.
        inner (int): Elements per row that share their parameters.
        channels (int): Number of different parameters.
        channels_last (bool): Whether the parameters differ within a row.
    """

    rows: int
    inner: int
    channels: int
    channels_last: bool


def find_layout(x: Tensor, channel_dim: Optional[int]) -> Optional[Layout]:
    """Return how to walk ``x`` without a copy, or None if that is impossible.

    Args:
        x (Tensor): Any shape and strides.
        channel_dim (int, optional): Non-negative axis along which the
            parameters differ; None if they are shared.

    Returns:
        Layout | None: None asks for the eager form.
    """
    if x.dtype not in DTYPES or not x.numel():
        return None
    if channel_dim is None:
        dense = x.is_contiguous() or _is_dense(x)
        return Layout(1, x.numel(), 1, False) if dense else None
    channels = x.shape[channel_dim]
    inner = x.shape[channel_dim + 1:].numel()
    rows = x.numel() // inner
    if x.is_contiguous():
        if inner == 1:
            return Layout(rows // channels, 1, channels, True)
        return Layout(rows, inner, channels, False)
    last = x.dim() == 4 and channel_dim == 1 and x.is_contiguous(
        memory_format=torch.channels_last)
    return Layout(x.numel() // channels, 1, channels, True) if last else None


def _is_dense(x: Tensor) -> bool:
    """Return whether the strides are a permutation without gaps."""
    expected = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True
