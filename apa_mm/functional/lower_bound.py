"""A lower bound that does not kill the parameter below it."""
from typing import Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .backend import is_plain

__all__ = ['lower_bound']


class _LowerBound(torch.autograd.Function):

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, bound: float) -> Tensor:
        return value.clamp(min=bound)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        value, ctx.bound = inputs
        ctx.save_for_backward(value)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tuple[Tensor, None]:
        value, = ctx.saved_tensors
        # A negative gradient makes a descent step raise the value.
        passes = (value >= ctx.bound) | (grad < 0)
        return grad * passes, None


def lower_bound(value: Tensor, bound: float) -> Tensor:
    """Return ``max(value, bound)`` with a gradient that can lead back up.

    ``torch.clamp`` gives a value below the bound no gradient, so that a
    parameter which one optimiser step pushed there stays there for ever.
    Here the gradient passes at and above the bound, and below it if it would
    raise the value; a gradient that would lower it further is dropped.

    Args:
        value (Tensor): Any shape.
        bound (float): The smallest value to return.

    Returns:
        Tensor: Same shape and dtype as ``value``.

    Example:
        >>> import torch
        >>> lower_bound(torch.tensor([-1.0, 2.0]), 0.5)
        tensor([0.5000, 2.0000])
    """
    # Above the bound it is the identity; one value on the CPU is cheap to see.
    if (value.numel() == 1 and value.device.type == 'cpu'
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing() and is_plain(value)
            and value.item() >= bound):
        return value
    return _LowerBound.apply(value, bound)
