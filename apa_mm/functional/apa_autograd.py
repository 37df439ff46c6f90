"""The autograd Function of APA, AGLU and the Gumbel gate.

Only ``x``, ``kappa`` and ``lambda`` are kept for the backward pass; the rest
is computed again.
"""
from typing import Any, Optional, Tuple

import torch
from torch import Tensor

from .formulas import activation, activation_gradients
from .kernels import find_kernel

__all__ = ['APAFunction']


class APAFunction(torch.autograd.Function):
    """An activation that keeps nothing but its inputs.

    The eager formulas serve every device, ``torch.compile``, ``torch.func``
    and second derivatives; the compiled forms are called where they apply,
    see :mod:`apa_mm.functional.backend`.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, kappa: Tensor, lambd: Tensor, kind: int,
                paper: bool, backend: str) -> Tensor:
        """Return the activation in the dtype of x."""
        kernel = find_kernel(backend, x, kappa, lambd)
        if kernel is not None:
            return kernel.forward(kind)
        wide = _widen(x)
        out = activation(wide, _widen(kappa, wide), _widen(lambd, wide), kind)
        return out.to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        """Keep the inputs; torch.func wants this apart from forward."""
        ctx.save_for_backward(*inputs[:3])
        ctx.settings = inputs[3:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        """Return the gradients, differentiable if autograd asks for it."""
        x, kappa, lambd = ctx.saved_tensors
        kind, paper, backend = ctx.settings
        kernel = None
        if not torch.is_grad_enabled():
            kernel = find_kernel(backend, x, kappa, lambd)
        if kernel is not None:
            return (*kernel.backward(grad, kind, paper), None, None, None)
        wide = _widen(x)
        grads = activation_gradients(wide, grad.to(wide.dtype),
                                     _widen(kappa, wide), _widen(lambd, wide),
                                     kind, paper)
        inputs = zip(grads, (x, kappa, lambd), ctx.needs_input_grad[:3],
                     strict=True)
        reduced = [
            _reduce(g, like) if needed and g is not None else None
            for g, like, needed in inputs
        ]
        return (*reduced, None, None, None)


def _widen(tensor: Tensor, like: Optional[Tensor] = None) -> Tensor:
    """Return the tensor in the dtype to compute in: float32 or float64."""
    if like is not None:
        return tensor.to(like.dtype)
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _reduce(grad: Tensor, like: Tensor) -> Tensor:
    """Sum a gradient over the axes along which its input was expanded."""
    return grad.sum_to_size(like.shape).to(like.dtype)
