"""Which form computes an activation, and its derivative.

The environment variable ``APA_MM_BACKEND`` chooses for the whole process, the
argument ``backend`` for a call:

======  ====================================================================
auto    'native' on the CPU, 'triton' on CUDA devices that have it, 'eager'
        elsewhere, for float64 and where no C++ compiler is found (default)
eager   torch operations; every device and dtype
native  the compiled CPU form (:mod:`apa_mm.kernels.native`)
triton  the GPU kernels (:mod:`apa_mm.kernels.apa_triton`); on the CPU only
        in Triton's interpreter, ``TRITON_INTERPRET=1``
======  ====================================================================

A form that does not apply to a tensor falls back to 'eager'. Whatever records
or transforms operations (``torch.compile``, export, ``torch.jit.trace``,
``make_fx``, fake tensors, ``torch.func``, forward-mode differentiation) gets
the plain formulas, so that it sees nothing but torch's own operations.
"""
import os
from typing import Any, Callable, List, Optional, Sequence, Tuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from apa_mm.utils.imports import HAS_TRITON

from . import native
from .formulas import activation

BACKENDS = ('auto', 'eager', 'native', 'triton')
VARIABLE = 'APA_MM_BACKEND'


def activate(x: Tensor,
             kappa: Tensor,
             lambd: Tensor,
             kind: int,
             paper: bool = False,
             backend: Optional[str] = None) -> Tensor:
    """Return :func:`~apa_mm.kernels.formulas.activation` by the best form."""
    if not is_plain(x, kappa, lambd):
        return activation(x, kappa, lambd, kind, paper)
    name = choose_backend(x, backend)
    if torch.is_grad_enabled() and (x.requires_grad or kappa.requires_grad
                                    or lambd.requires_grad):
        return _Activation.apply(x, kappa, lambd, kind, paper, name)
    return _forward(x, kappa, lambd, kind, name)


def choose_backend(x: Tensor, wanted: Optional[str] = None) -> str:
    """Return 'eager', 'native' or 'triton' for a plain tensor.

    Raises:
        ValueError: If the name, an argument or APA_MM_BACKEND, is unknown.
    """
    name = wanted or os.environ.get(VARIABLE) or 'auto'
    if name not in BACKENDS:
        source = 'backend' if wanted else f'environment variable {VARIABLE}'
        raise ValueError(
            f'{source} must be one of {BACKENDS}, but got {name!r}')
    device = x.device.type
    if name == 'auto':
        name = {'cpu': 'native', 'cuda': 'triton'}.get(device, 'eager')
    if name == 'eager' or x.dtype not in native.DTYPES:
        return 'eager'
    if name == 'triton':
        return name if _triton_runs(device) else 'eager'
    usable = device == 'cpu' and native.library() is not None
    return name if usable else 'eager'


def is_plain(*tensors: Tensor) -> bool:
    """Return whether kernels may read the tensors' memory as their values.

    Not so while operations are recorded or transformed, nor for subclasses and
    tensors beyond their memory (negated, sparse, nested, zeros, batched).
    """
    if (torch.compiler.is_compiling() or torch._C._is_tracing()
            or torch._C._len_torch_dispatch_stack()
            or torch._C._are_functorch_transforms_active()
            or forward_ad._current_level >= 0):
        return False
    for x in tensors:
        if (type(x) not in (Tensor, torch.nn.Parameter) or x.is_neg()
                or x.layout is not torch.strided or x.is_nested
                or x._is_zerotensor()
                or torch._C._functorch.is_legacy_batchedtensor(x)):
            return False
    return True


def gradients_of(function: Callable, inputs: Sequence[Tensor], grad: Tensor,
                 needed: Sequence[bool]) -> List[Optional[Tensor]]:
    """Compute ``function`` again and return the gradients of its inputs.

    They can be differentiated again if grad mode is on (``create_graph``).
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, so that a parameter that was computed from x does not lead
        # from its own gradient to that of x.
        inputs = [t.view_as(t) if create_graph else
                  t.detach().requires_grad_(need)
                  for t, need in zip(inputs, needed, strict=True)]
        out = function(*inputs)
        wanted = [t for t, need in zip(inputs, needed, strict=True) if need]
        grads = iter(torch.autograd.grad(
            out, wanted, grad, create_graph=create_graph))
    return [next(grads) if need else None for need in needed]


def refuse_second_order(remedy: str) -> None:
    """Raise RuntimeError in a backward pass with ``create_graph=True``."""
    if torch.is_grad_enabled():
        raise RuntimeError('create_graph=True: there is no second derivative '
                           f'here; {remedy}')


class _Activation(torch.autograd.Function):
    """Keeps the inputs alone and computes the rest again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kappa: Tensor, lambd: Tensor, kind: int,
                paper: bool, backend: str) -> Tensor:
        ctx.save_for_backward(x, kappa, lambd)
        ctx.settings = kind, paper, backend
        return _forward(x, kappa, lambd, kind, backend)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        inputs = ctx.saved_tensors
        kind, paper, backend = ctx.settings
        layout = None
        if not torch.is_grad_enabled() and is_plain(*inputs, grad):
            layout = _find_layout(backend, *inputs)
        if layout is None:
            grads = gradients_of(
                lambda *t: activation(*t, kind, paper), inputs, grad,
                ctx.needs_input_grad[:3])
            return (*grads, None, None, None)
        x, kappa, lambd = inputs
        grad_x, sums = _module(backend).backward(
            x, grad, native.flat(kappa), native.flat(lambd), layout, kind,
            paper)
        return (grad_x, sums[:, 0].reshape(kappa.shape).to(kappa.dtype),
                sums[:, 1].reshape(lambd.shape).to(lambd.dtype), None, None,
                None)


def _forward(x: Tensor, kappa: Tensor, lambd: Tensor, kind: int,
             backend: str) -> Tensor:
    layout = _find_layout(backend, x, kappa, lambd)
    if layout is None:
        return activation(x, kappa, lambd, kind)
    return _module(backend).forward(x, native.flat(kappa), native.flat(lambd),
                                    layout, kind)


def _module(backend: str) -> Any:
    if backend == 'triton':
        # Imported late: it defines kernels, for which triton is needed.
        from . import apa_triton
        return apa_triton
    return native


def _triton_runs(device: str) -> bool:
    if not HAS_TRITON:
        return False
    return device in ('cuda', 'xpu') or (
        device == 'cpu' and _module('triton').interpreted())


def _find_layout(backend: str, x: Tensor, kappa: Tensor,
                 lambd: Tensor) -> Optional[native.Layout]:
    """Return how the kernel walks x; None asks for the eager form.

    So it is if the parameters vary along several axes or differ in shape.
    """
    if backend == 'eager' or kappa.numel() != lambd.numel():
        return None
    channel_dim = None
    if kappa.numel() > 1:
        offset = x.dim() - kappa.dim()
        axes = [offset + i for i, size in enumerate(kappa.shape) if size > 1]
        if kappa.shape != lambd.shape or len(axes) > 1:
            return None
        channel_dim = axes[0]
    return native.find_layout(x, channel_dim)
