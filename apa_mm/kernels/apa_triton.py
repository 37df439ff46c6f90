r"""Triton kernels of APA, AGLU and the Gumbel gate for GPUs.

One pass forward and one pass backward; the formulas are those of
``csrc/apa_math.h``. Nothing but the input is kept.

The arithmetic is 5 to 6 operations per byte, where current cards do 10 to 20,
so the time is that of a device copy if enough bytes are on their way at once:
10 KB per multiprocessor on an A100, 18 KB on an H100. A program of 1,024
elements on 4 warps loads 4 KB forward and 8 KB backward, and eight or more
programs are resident.

The gradients of kappa and lambda are summed in float32 within a block, written
to a buffer (0.07 % of the traffic; 2 % with channels last) and added up by
``torch.sum`` in a fixed order: the result is the same in every run.

Three ways to walk a tensor, in blocks of height x width elements:

flat      one pair of parameters; (1, n), any dense strides.
rows      one pair per row, row r has those of channel r % channels;
          (N, C, H, W) is N * C rows of H * W.
columns   one pair per column; channels last.

Kernels are compiled per element type, formula, way and power of two of the
row length (up to 1,024), not per image size.
"""
import contextlib
from typing import Any, NamedTuple, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .formulas import GUMBEL, UNIT
from .native import Layout

BLOCK = 1024  # elements per program
WARPS = 4
#: Widest block where every column has its own sum: 128 bytes of float32.
LINE = 32
FLAT, ROWS, COLUMNS = range(3)  # ways to walk the tensor

_UNIT, _GUMBEL = tl.constexpr(UNIT), tl.constexpr(GUMBEL)
_FLAT, _ROWS = tl.constexpr(FLAT), tl.constexpr(ROWS)


def interpreted() -> bool:
    """Return whether kernels run in Triton's interpreter, on the CPU."""
    return not isinstance(_forward, triton.JITFunction)


@triton.jit
def _place(rows, cols, channels, way: tl.constexpr, height: tl.constexpr,
           width: tl.constexpr):
    """Return offsets and mask of a block, and channels along one axis."""
    program = tl.program_id(0).to(tl.int64)
    if way == _FLAT:
        at = program * width + tl.arange(0, width)[None, :]
        mask = at < cols
        channel = tl.zeros([1, 1], tl.int64)
    else:
        blocks = tl.cdiv(cols, width)
        row = program // blocks * height + tl.arange(0, height)[:, None]
        col = program % blocks * width + tl.arange(0, width)[None, :]
        at = row * cols + col
        mask = (row < rows) & (col < cols)
        channel = (row if way == _ROWS else col) % channels
    return at, mask, channel


@triton.jit
def _log1p_terms(t):
    """Return v = exp(-|t|), s = v / (2 + v) and (atanh(s) / s - 1) / s."""
    v = tl.exp(-tl.abs(t))
    s = v / (2.0 + v)
    q = s * s
    p = q * (1.0 / 15) + 1.0 / 13
    p = p * q + 1.0 / 11
    p = p * q + 1.0 / 9
    p = p * q + 1.0 / 7
    p = p * q + 1.0 / 5
    p = p * q + 1.0 / 3
    return v, s, p * s


@triton.jit
def _finite(z):
    """Return z, or a number for infinity: infinity times 0 would be NaN."""
    z = tl.where(z < -1e15, -1e15, z)
    return tl.where(z > 1e15, 1e15, z)


@triton.jit
def _gumbel_exponent(kappa, z):
    """Return -kappa * z, capped where the gate is 0 and exp finite."""
    u = -kappa * _finite(z)
    return tl.where(u > 5.0, 5.0, u)  # unlike tl.minimum it keeps NaN


@triton.jit(do_not_specialize=['rows', 'channels'])
def _forward(x_ptr, y_ptr, kappa_ptr, lambd_ptr, rows, cols, channels,
             kind: tl.constexpr, way: tl.constexpr, height: tl.constexpr,
             width: tl.constexpr):
    at, mask, channel = _place(rows, cols, channels, way, height, width)
    z = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    kappa = tl.load(kappa_ptr + channel)
    if kind == _GUMBEL:
        y = tl.exp(-tl.exp(_gumbel_exponent(kappa, z)))
    else:
        lambd = tl.load(lambd_ptr + channel)
        t = tl.log(lambd) - kappa * _finite(z)
        _, s, tail = _log1p_terms(t)
        softplus = tl.maximum(t, 0.0) + 2.0 * (s + s * s * tail)
        y = tl.exp(-softplus / lambd)
        if kind == _UNIT:
            y = tl.where(y == 0, 0.0, y * z)
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _gradients(z, grad, kappa, lambd, kind: tl.constexpr,
               paper: tl.constexpr):
    """Return the gradients of z, kappa and lambda of every element."""
    if kind == _GUMBEL:
        u = _gumbel_exponent(kappa, z)
        slope = grad * tl.exp(u - tl.exp(u))
        grad_z = slope * kappa
        grad_kappa = slope * _finite(z)
        grad_lambd = tl.zeros_like(z)
    else:
        z = _finite(z)
        t = tl.log(lambd) - kappa * z
        v, s, tail = _log1p_terms(t)
        inverse = 1.0 / (1.0 + v)
        positive = t > 0
        log1p = 2.0 * (s + s * s * tail)
        eta = tl.exp(-(tl.maximum(t, 0.0) + log1p) / lambd)
        g = eta * tl.where(positive, inverse, v * inverse) / lambd
        outer = grad
        if kind == _UNIT:
            outer = grad * z
        grad_z = outer * g * kappa
        if kind == _UNIT:
            grad_z += grad * eta
        grad_kappa = outer * z * g
        if paper:
            grad_lambd = -outer * g / lambd
        else:
            # log(1 + e^t) - sigmoid(t), by a series for t < 0, where it
            # cancels.
            scaled = s / lambd
            low = 2.0 * scaled * scaled * (0.5 * (2.0 + v) * inverse + tail)
            high = (t + log1p - inverse) / lambd / lambd
            grad_lambd = outer * eta * tl.where(positive, high, low)
    return grad_z, grad_kappa, grad_lambd


@triton.jit(do_not_specialize=['rows', 'channels', 'parts'])
def _backward(x_ptr, grad_ptr, out_ptr, partial_ptr, kappa_ptr, lambd_ptr,
              rows, cols, channels, parts, kind: tl.constexpr,
              paper: tl.constexpr, way: tl.constexpr, height: tl.constexpr,
              width: tl.constexpr):
    at, mask, channel = _place(rows, cols, channels, way, height, width)
    z = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    # 0 outside of the tensor, so that the sums are those of its elements.
    grad = tl.load(grad_ptr + at, mask=mask, other=0.0).to(tl.float32)
    kappa = tl.load(kappa_ptr + channel)
    lambd = kappa
    if kind != _GUMBEL:
        lambd = tl.load(lambd_ptr + channel)
    grad_z, grad_kappa, grad_lambd = _gradients(z, grad, kappa, lambd, kind,
                                                paper)
    tl.store(out_ptr + at, grad_z.to(out_ptr.dtype.element_ty), mask=mask)
    program = tl.program_id(0).to(tl.int64)
    if way == _FLAT:
        tl.store(partial_ptr + program, tl.sum(grad_kappa))
        tl.store(partial_ptr + parts + program, tl.sum(grad_lambd))
    else:
        blocks = tl.cdiv(cols, width)
        if way == _ROWS:  # (column blocks, rows)
            row = program // blocks * height + tl.arange(0, height)
            into, inside = program % blocks * rows + row, row < rows
            axis: tl.constexpr = 1
        else:  # (row blocks, columns)
            col = program % blocks * width + tl.arange(0, width)
            into, inside = program // blocks * cols + col, col < cols
            axis: tl.constexpr = 0
        tl.store(partial_ptr + into, tl.sum(grad_kappa, axis), mask=inside)
        tl.store(partial_ptr + parts + into, tl.sum(grad_lambd, axis),
                 mask=inside)


class _Plan(NamedTuple):
    """How the tensor is cut into programs."""

    way: int
    rows: int
    cols: int
    channels: int
    block: Tuple[int, int]

    @classmethod
    def of(cls, layout: Layout) -> '_Plan':
        rows, inner, channels, channels_last = layout
        way = COLUMNS if channels_last else ROWS
        cols = channels if channels_last else inner
        if rows == channels == 1:
            way = FLAT
        width = LINE if way == COLUMNS else BLOCK
        if way != FLAT:
            width = min(width, triton.next_power_of_2(cols))
        return cls(way, rows, cols, channels, (BLOCK // width, width))

    @property
    def blocks(self) -> Tuple[int, int]:
        """Programs along the rows and along the columns."""
        return (triton.cdiv(self.rows, self.block[0]),
                triton.cdiv(self.cols, self.block[1]))

    def launch(self, kernel: Any, tensors: tuple, *numbers: int,
               **constants: Any) -> None:
        """Run a kernel on the tensors' device."""
        down, across = self.blocks
        x = tensors[0]
        with (torch.cuda.device(x.device) if x.is_cuda else
              contextlib.nullcontext()):
            kernel[(down * across, )](
                *tensors, self.rows, self.cols, self.channels, *numbers,
                way=self.way, height=self.block[0], width=self.block[1],
                num_warps=WARPS, **constants)


def forward(x: Tensor, kappa: Tensor, lambd: Tensor, layout: Layout,
            kind: int) -> Tensor:
    """Return the activation; arguments as of ``native.forward``."""
    y = torch.empty_like(x)
    _Plan.of(layout).launch(_forward, (x, y, kappa, lambd), kind=int(kind))
    return y


def backward(x: Tensor, grad: Tensor, kappa: Tensor, lambd: Tensor,
             layout: Layout, kind: int,
             paper: bool) -> Tuple[Tensor, Tensor]:
    """Return the gradient of x and (channels, 2) of kappa and lambda."""
    if grad.stride() != x.stride() or grad.dtype != x.dtype:
        grad = torch.empty_like(x).copy_(grad)
    out = torch.empty_like(x)
    plan = _Plan.of(layout)
    down, across = plan.blocks
    shape = {
        FLAT: (across, 1),
        ROWS: (across, plan.rows),
        COLUMNS: (down, plan.cols)
    }[plan.way]
    partial = x.new_empty((2, *shape), dtype=torch.float32)
    plan.launch(_backward, (x, grad, out, partial, kappa, lambd),
                partial[0].numel(), kind=int(kind), paper=bool(paper))
    return out, partial.view(2, -1, layout.channels).sum(1).t()
