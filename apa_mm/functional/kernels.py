"""Compiled forms behind one small interface, chosen per call."""
from typing import NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from . import native

__all__ = ['NativeKernel', 'find_kernel']


class NativeKernel(NamedTuple):
    """The CPU form, bound to an input and its parameters."""

    x: Tensor
    kappa: Tensor
    lambd: Tensor
    layout: native.Layout

    def forward(self, product: bool) -> Tensor:
        """Return eta(x), or x * eta(x), in the strides of x."""
        return native.forward(self.x, _flat(self.kappa), _flat(self.lambd),
                              self.layout, product)

    def backward(self, grad: Tensor, product: bool,
                 paper: bool) -> Tuple[Tensor, Tensor, Tensor]:
        """Return the gradients for x, kappa and lambda."""
        grad_x, sums = native.backward(self.x, grad, _flat(self.kappa),
                                       _flat(self.lambd), self.layout, product,
                                       paper)
        grads = (column.reshape(p.shape).to(p.dtype)
                 for column, p in zip((sums[:, 0], sums[:, 1]),
                                      (self.kappa, self.lambd), strict=True))
        return (grad_x, *grads)


def find_kernel(backend: str, x: Tensor, kappa: Tensor,
                lambd: Tensor) -> Optional[NativeKernel]:
    """Return the compiled form for these tensors, or None for the eager one.

    Args:
        backend (str): From :func:`apa_mm.functional.backend.choose_backend`.
        x (Tensor): Input, any shape.
        kappa (Tensor): Broadcastable to ``x``.
        lambd (Tensor): Broadcastable to ``x``.

    Returns:
        NativeKernel | None: None if the parameters vary along more than one
        axis, or differ in shape, or ``x`` would have to be copied.
    """
    if backend != 'native' or kappa.numel() != lambd.numel():
        return None
    channel_dim = None
    if kappa.numel() > 1:
        if kappa.shape != lambd.shape:
            return None
        axes = [
            x.dim() - kappa.dim() + i for i, size in enumerate(kappa.shape)
            if size > 1
        ]
        if len(axes) > 1:
            return None
        channel_dim = axes[0]
    layout = native.find_layout(x, channel_dim)
    return layout and NativeKernel(x, kappa, lambd, layout)


def _flat(parameter: Tensor) -> Tensor:
    return parameter.detach().reshape(-1).to(torch.float32).contiguous()
