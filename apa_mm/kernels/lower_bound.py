"""The gradient of a lower bound that does not kill the parameter below it."""
from typing import Any, Tuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .activation import is_plain

__all__ = ['bounded']


class _LowerBound(torch.autograd.Function):

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, bound: float) -> Tensor:
        return value.clamp(min=bound)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        value, ctx.bound = inputs
        ctx.save_for_backward(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Tensor, None]:
        value, = ctx.saved_tensors
        # A negative gradient makes a descent step raise the value.
        passes = (value >= ctx.bound) | (grad < 0)
        return grad * passes, None


class _ForwardLowerBound(_LowerBound):
    """Knows forward mode too, which ``torch.compile`` refuses."""

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return tangent.clone()  # a view of an input may not be returned


def bounded(value: Tensor, bound: float) -> Tensor:
    """Return the maximum; see :func:`apa_mm.functional.lower_bound`."""
    if torch.jit.is_tracing() or torch.onnx.is_in_onnx_export():
        return value.clamp(min=bound)
    # Above the bound it is the identity; one value on the CPU is cheap to see.
    if (value.numel() == 1 and value.device.type == 'cpu' and is_plain(value)
            and value.item() >= bound):
        return value
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return _LowerBound.apply(value, bound)
    return _ForwardLowerBound.apply(value, bound)
