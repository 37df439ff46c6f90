"""Calls of the compiled CPU form, and how it walks a tensor."""
import ctypes
from typing import NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from .build import library

#: Element types of the compiled forms, with their numbers in C++.
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
#: Fewer elements than this are not worth waking a second thread for.
ELEMENTS_PER_THREAD = 16384


class Layout(NamedTuple):
    """How a tensor is walked: see the header of ``apa_cpu.cpp``."""

    rows: int
    inner: int  # elements per row that share their parameters
    channels: int  # number of different parameters
    channels_last: bool  # whether the parameters differ within a row


def find_layout(x: Tensor, channel_dim: Optional[int]) -> Optional[Layout]:
    """Return how to walk ``x`` without a copy, or None if that is impossible.

    The parameters differ along axis ``channel_dim``; None: they are shared.
    """
    size = x.numel()
    if x.dtype not in DTYPES or not size:
        return None
    if channel_dim is None:
        dense = x.is_contiguous() or _is_dense(x)
        return Layout(1, size, 1, False) if dense else None
    channels = x.shape[channel_dim]
    inner = x.shape[channel_dim + 1:].numel()
    if x.is_contiguous():
        if inner == 1:
            return Layout(size // channels, 1, channels, True)
        return Layout(size // inner, inner, channels, False)
    last = x.dim() == 4 and channel_dim == 1 and x.is_contiguous(
        memory_format=torch.channels_last)
    return Layout(size // channels, 1, channels, True) if last else None


def _is_dense(x: Tensor) -> bool:
    """Return whether the strides are a permutation without gaps."""
    expected = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def forward(x: Tensor, kappa: Tensor, lambd: Tensor, layout: Layout, kind: int,
            affine: Optional[Tuple[Tensor, Tensor]] = None,
            inplace: bool = False) -> Tensor:
    """Return the activation of ``z = scale * x + shift``.

    ``layout`` is that of ``x``; kappa and lambda have one value or one per
    channel. ``affine`` is scale and shift per channel, None for 1 and 0. All
    but ``x`` are float32 and contiguous, see :func:`flat`.
    """
    y = x if inplace else torch.empty_like(x)
    library().apa_forward(
        pointer(x), pointer(y), *_problem(x, kappa, lambd, layout, affine),
        int(kind), int(layout.channels_last), threads(x))
    return y


def backward(x: Tensor, grad: Tensor, kappa: Tensor, lambd: Tensor,
             layout: Layout, kind: int,
             paper: bool) -> Tuple[Tensor, Tensor]:
    """Return :func:`backward_parts`, its sums added up: (channels, 4)."""
    grad_x, sums = backward_parts(x, grad, kappa, lambd, layout, kind, paper)
    return grad_x, sums.reshape(-1, layout.channels, 4).sum(0)


def backward_parts(
        x: Tensor, grad: Tensor, kappa: Tensor, lambd: Tensor, layout: Layout,
        kind: int, paper: bool,
        affine: Optional[Tuple[Tensor, Tensor]] = None,
        center: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
    """Return the gradient for z and the sums that the parameters need.

    Those are float64, (rows, 4), or (channels, 4) with ``channels_last``: of
    the gradients for kappa and lambda (Eq. 8 if ``paper``), of ``grad_z`` and
    of ``grad_z * (x - center)``. Other arguments as in :func:`forward`.
    """
    if grad.stride() != x.stride() or grad.dtype != x.dtype:
        grad = torch.empty_like(x).copy_(grad)
    grad_z = torch.empty_like(x)
    count = layout.channels if layout.channels_last else layout.rows
    sums = x.new_empty((count, 4), dtype=torch.float64)
    library().apa_backward(
        pointer(x), pointer(grad), pointer(grad_z), pointer(sums),
        *_problem(x, kappa, lambd, layout, affine), pointer(center),
        int(kind), int(paper), int(layout.channels_last), threads(x))
    return grad_z, sums


def flat(parameter: Tensor) -> Tensor:
    """Return the values in order in memory, as float32."""
    if parameter.dtype == torch.float32 and parameter.is_contiguous():
        return parameter
    return parameter.detach().to(torch.float32).contiguous()


def pointer(tensor: Optional[Tensor]) -> ctypes.c_void_p:
    """Return the address of a tensor's data, and hold on to it; or null."""
    address = ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
    address.tensor = tensor
    return address


def _problem(x: Tensor, kappa: Tensor, lambd: Tensor, layout: Layout,
             affine: Optional[Tuple[Tensor, Tensor]]) -> tuple:
    size = ctypes.c_int64
    scale, shift = affine or (None, None)
    stride = int(kappa.numel() > 1)
    return (DTYPES[x.dtype], size(layout.rows), size(layout.inner),
            size(layout.channels), pointer(kappa), pointer(lambd),
            size(stride), pointer(scale), pointer(shift))


def threads(x: Tensor) -> int:
    """Return how many of torch's threads are worth waking for ``x``."""
    wanted = -(-x.numel() // ELEMENTS_PER_THREAD)
    return max(1, min(torch.get_num_threads(), wanted))
