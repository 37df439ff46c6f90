"""Compiled forms behind one small interface, chosen per call."""
from typing import NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from . import inductor, native
from .layout import Layout, find_layout

__all__ = ['Kernel', 'find_kernel']


class Kernel(NamedTuple):
    """A compiled form, bound to an input and its parameters."""

    backend: str
    x: Tensor
    kappa: Tensor
    lambd: Tensor
    layout: Layout

    def forward(self, kind: int) -> Tensor:
        """Return the activation in the strides and dtype of x."""
        return self._module().forward(self.x, _flat(self.kappa),
                                      _flat(self.lambd), self.layout, kind)

    def backward(self,
                 grad: Tensor,
                 kind: int,
                 paper: bool = False) -> Tuple[Tensor, Tensor, Tensor]:
        """Return the gradients for x, kappa and lambda."""
        grad_x, sums = self._module().backward(self.x, grad, _flat(self.kappa),
                                               _flat(self.lambd), self.layout,
                                               kind, paper)
        grads = (column.reshape(p.shape).to(p.dtype)
                 for column, p in zip((sums[:, 0], sums[:, 1]),
                                      (self.kappa, self.lambd), strict=True))
        return (grad_x, *grads)

    def _module(self) -> object:
        if self.backend == 'triton':
            # Imported late: it defines kernels, for which triton is needed.
            from . import apa_triton
            return apa_triton
        return native if self.backend == 'native' else inductor


def find_kernel(backend: str, x: Tensor, kappa: Tensor,
                lambd: Tensor) -> Optional[Kernel]:
    """Return the compiled form for these tensors, or None for the eager one.

    Args:
        backend (str): From :func:`apa_mm.functional.backend.choose_backend`.
        x (Tensor): Input, any shape.
        kappa (Tensor): Broadcastable to ``x``.
        lambd (Tensor): Broadcastable to ``x``.

    Returns:
        Kernel | None: None if the parameters vary along more than one axis,
        or differ in shape, or ``x`` would have to be copied.
    """
    if backend == 'eager' or kappa.numel() != lambd.numel():
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
    layout = find_layout(x, channel_dim)
    return layout and Kernel(backend, x, kappa, lambd, layout)


def _flat(parameter: Tensor) -> Tensor:
    return parameter.detach().reshape(-1).to(torch.float32).contiguous()
