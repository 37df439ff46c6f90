"""AGLU beside the reference Function and torch's own activations."""
import statistics
import time
from typing import Callable, Dict, List

import torch
import torch.nn.functional as F
from torch import Tensor

from apa_mm.functional import aglu

TITLE = 'AGLU, forward and backward (theirs: the row\'s other activation)'
SIZES = ((100, 100), (1000, 1000), (8, 256, 56, 56), (16, 256, 86, 86))
QUICK_SIZES = SIZES[:3]


class ReferenceAGLU(torch.autograd.Function):
    """The paper's formulas, Eq. 6 to 9, keeping x and eta for backward."""

    @staticmethod
    def forward(ctx, x: Tensor, kappa: Tensor, lambd: Tensor) -> Tensor:
        """Return x * eta(x)."""
        eta = torch.exp(
            F.softplus(kappa * x - torch.log(lambd), beta=-1) / lambd)
        ctx.save_for_backward(x, eta, kappa, lambd)
        return x * eta

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        """Return the gradients of Eq. 7 to 9."""
        x, eta, kappa, lambd = ctx.saved_tensors
        slope = eta / (lambd + torch.exp(kappa * x))
        grad_x = grad * (eta + kappa * x * slope)
        grad_kappa = (grad * x * x * slope).sum().reshape(1)
        grad_lambd = (-grad * x / lambd * slope).sum().reshape(1)
        return grad_x, grad_kappa, grad_lambd


def saved_bytes(function: Callable, x: Tensor) -> float:
    """Return the bytes per element that the backward pass keeps."""
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = function(x.detach().requires_grad_())
    total = sum(size for size in kept.values() if size > 64)
    del out
    return total / x.numel()


def medians(functions: Dict[str, Callable], repeats: int) -> Dict[str, float]:
    """Return median seconds; the functions take turns."""
    times: Dict[str, List[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            if turn:  # the first turn compiles and allocates
                times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(t) for name, t in times.items()}


def activations() -> Dict[str, Callable]:
    """Return ours and the others, each a function of x."""
    kappa = torch.tensor([1.1], requires_grad=True)
    lambd = torch.tensor([0.5], requires_grad=True)
    return {
        'ours': lambda x: aglu(x, kappa=kappa, lambd=lambd),
        'eager form': lambda x: aglu(
            x, kappa=kappa, lambd=lambd, backend='eager'),
        'reference': lambda x: ReferenceAGLU.apply(x, kappa, lambd),
        'Mish': F.mish,
        'GELU': F.gelu,
        'SiLU': F.silu,
        'ReLU': F.relu,
    }


def run(repeats: int = 5, quick: bool = False) -> list:
    """Return one row per size and activation, and one per saved size.

    Args:
        repeats (int): Runs of which the median counts.
        quick (bool): Leave out the largest size.

    Returns:
        list[dict]: Rows with 'case', 'ours', 'theirs', 'ratio', 'unit',
        'note'.
    """
    rows = []
    for size in QUICK_SIZES if quick else SIZES:
        x, grad = torch.randn(size), torch.randn(size)
        kinds = activations()

        def step(function, x=x, grad=grad):
            function(x.detach().requires_grad_()).backward(grad)

        seconds = medians({
            name: (lambda f=f: step(f))
            for name, f in kinds.items()
        }, max(repeats, 5))
        shape = 'x'.join(map(str, size))
        for name in kinds:
            if name != 'ours':
                rows.append(
                    dict(
                        case=f'{shape} vs {name}',
                        ours=seconds['ours'] * 1e3,
                        theirs=seconds[name] * 1e3,
                        ratio=seconds['ours'] / seconds[name],
                        unit='ms',
                        note=None))
    x = torch.randn(1000, 100)
    for name, function in activations().items():
        if name != 'ours':
            ours, theirs = (saved_bytes(f, x)
                            for f in (activations()['ours'], function))
            rows.append(
                dict(
                    case=f'kept for backward vs {name}',
                    ours=ours,
                    theirs=theirs,
                    ratio=ours / theirs,
                    unit='bytes per element',
                    note=None))
    return rows
