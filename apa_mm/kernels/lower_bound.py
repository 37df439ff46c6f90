"""Derivatives of a lower bound that keep the parameter below it alive."""
from typing import Any, Tuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .activation import is_plain


class _Descent(torch.autograd.Function):
    """Passes the gradients that make a descent step raise the value."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(value)
        ctx.bound = bound
        return value.clamp(min=bound)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Tensor, None]:
        value, = ctx.saved_tensors
        inside = value >= ctx.bound
        if torch.is_grad_enabled() and is_plain(value) and not inside.all():
            raise RuntimeError(
                f'create_graph=True: a value below its lower bound {ctx.bound}'
                ' has a rule for descent in place of a derivative, and no '
                'second one; set it to the bound (lambd.data.clamp_) or use '
                'torch.func')
        return grad * (inside | (grad < 0)), None


def _identity(value: Tensor, bound: float) -> Tensor:
    """Return the maximum with the derivative 1 in every mode and order."""
    return torch.where(value < bound, bound + (value - value.detach()), value)


def _is_exporting() -> bool:
    # torch.compiler.is_exporting is missing up to torch 2.6, and true within
    # torch.compile in 2.9.
    return getattr(torch.compiler, '_is_exporting_flag', False)


def bounded(value: Tensor, bound: float) -> Tensor:
    """Return the maximum; see :func:`apa_mm.functional.lower_bound`."""
    compiling = torch.compiler.is_compiling()
    derived = torch._C._are_functorch_transforms_active() or (
        not compiling and forward_ad._current_level >= 0)
    if not (derived or torch.is_grad_enabled()) or (
            torch.jit.is_tracing() or _is_exporting()):
        return value.clamp(min=bound)
    if derived:
        return _identity(value, bound)
    # Above the bound it is the identity; one value on the CPU is cheap to see.
    if (not compiling and value.numel() == 1 and value.device.type == 'cpu'
            and is_plain(value) and value.item() >= bound):
        return value
    return _Descent.apply(value, bound)
