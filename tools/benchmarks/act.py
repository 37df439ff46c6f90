"""AGLU beside the reference Function and torch's own activations."""
import statistics
import time
from typing import Callable, Dict, List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from apa_mm.functional import aglu
from apa_mm.kernels import native
from apa_mm.kernels.formulas import UNIT

TITLE = 'AGLU, forward and backward (theirs: the row\'s other activation)'
DEVICES = ('cpu', 'cuda')
SIZES = ((100, 100), (1000, 1000), (8, 256, 56, 56), (16, 256, 86, 86))
QUICK_SIZES = SIZES[:3]
#: Float32 bytes per element that have to be moved, forward and backward.
TRAFFIC = (8, 12)


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


@torch.library.custom_op('apa_mm_benchmark::aglu', mutates_args=())
def library_aglu(x: Tensor, kappa: Tensor, lambd: Tensor) -> Tensor:
    """Return AGLU by our C++ kernel, called as an operator of torch."""
    return native.forward(x, kappa, lambd, native.find_layout(x, None), UNIT)


@torch.library.custom_op('apa_mm_benchmark::grads', mutates_args=())
def library_grads(x: Tensor, grad: Tensor, kappa: Tensor,
                  lambd: Tensor) -> Tuple[Tensor, Tensor]:
    """Return the gradient of x, and those of kappa and lambda."""
    grad_x, sums = native.backward(x, grad, kappa, lambd,
                                   native.find_layout(x, None), UNIT, False)
    return grad_x, sums[0, :2].to(x.dtype, copy=True)


def _library_backward(ctx, grad: Tensor) -> tuple:
    grad_x, sums = library_grads(ctx.saved_tensors[0], grad,
                                 *ctx.saved_tensors[1:])
    return grad_x, sums[:1], sums[1:]


library_aglu.register_fake(lambda x, kappa, lambd: torch.empty_like(x))
library_grads.register_fake(
    lambda x, grad, kappa, lambd: (torch.empty_like(x), x.new_empty(2)))
library_aglu.register_autograd(
    _library_backward,
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))


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


def peak_bytes(function: Callable, x: Tensor) -> float:
    """Return the most bytes per element allocated at once in a step."""
    grad = torch.ones_like(x)
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(
            activities=[activity.CPU], profile_memory=True) as profile:
        function(x.detach().requires_grad_()).backward(grad)
    events = [
        e for e in profile.profiler.kineto_results.events()
        if e.name() == '[memory]'
    ]
    total = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak / x.numel()


def clock(device: str = 'cpu') -> float:
    """Return the time in seconds, when the device has done its work."""
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter()


def medians(functions: Dict[str, Callable],
            repeats: int,
            device: str = 'cpu') -> Dict[str, float]:
    """Return median seconds; the functions take turns."""
    times: Dict[str, List[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            begin = clock(device)
            function()
            if turn:  # the first turn compiles and allocates
                times[name].append(clock(device) - begin)
    return {name: statistics.median(t) for name, t in times.items()}


def activations(device: str = 'cpu') -> Dict[str, Callable]:
    """Return ours and the others, each a function of x."""
    kappa = torch.tensor([1.1], device=device, requires_grad=True)
    lambd = torch.tensor([0.5], device=device, requires_grad=True)
    library = {} if device != 'cpu' or native.library() is None else {
        'torch.library': lambda x: library_aglu(x, kappa, lambd)
    }
    return {
        'ours': lambda x: aglu(x, kappa=kappa, lambd=lambd),
        **library,
        'eager form': lambda x: aglu(
            x, kappa=kappa, lambd=lambd, backend='eager'),
        'reference': lambda x: ReferenceAGLU.apply(x, kappa, lambd),
        'Mish': F.mish,
        'GELU': F.gelu,
        'SiLU': F.silu,
        'ReLU': F.relu,
    }


def two_medians(size: Tuple[int, ...], repeats: int, device: str,
                kinds: Dict[str, Callable]) -> Dict[str, Tuple[float, float]]:
    """Return seconds forward and backward of each; they take turns."""
    x = torch.randn(size, device=device)
    grad = torch.randn(size, device=device)
    times: Dict[str, list] = {name: [] for name in kinds}
    for turn in range(repeats + 1):
        for name, function in kinds.items():
            leaf = x.detach().requires_grad_()
            begin = clock(device)
            out = function(leaf)
            middle = clock(device)
            out.backward(grad)
            if turn:
                times[name].append((middle - begin, clock(device) - middle))
    return {
        name: tuple(map(statistics.median, zip(*pairs, strict=True)))
        for name, pairs in times.items()
    }


def run(repeats: int = 5, quick: bool = False, device: str = 'cpu') -> list:
    """Return rows of time, bandwidth and memory.

    Args:
        repeats (int): Runs of which the median counts.
        quick (bool): Leave out the largest size.
        device (str): 'cpu' or 'cuda'.

    Returns:
        list[dict]: Rows with 'case', 'ours', 'theirs', 'ratio', 'unit',
        'note'.
    """
    rows = []
    for size in QUICK_SIZES if quick else SIZES:
        rows += rows_of(size, max(repeats, 5), device)
    return rows + _memory_rows()


def rows_of(size: Tuple[int, ...], repeats: int, device: str) -> list:
    """Return the rows of time and bandwidth for one size."""
    # 'copy' is the least that a pass over the tensor can cost.
    times = two_medians(size, repeats, device,
                        dict(activations(device), copy=torch.clone))
    rows, copy = [], times.pop('copy')
    shape = 'x'.join(map(str, size))
    numel = torch.Size(size).numel()
    ours = times['ours']
    growth = f'ours {sum(ours) / numel * 1e9:.2f} ns per element'
    for name, theirs in times.items():
        if name != 'ours':
            note = (f'forward {ours[0] / theirs[0]:.2f}, backward '
                    f'{ours[1] / theirs[1]:.2f}; {growth}')
            rows.append(_row(f'{shape} vs {name}', sum(ours) * 1e3,
                             sum(theirs) * 1e3, 'ms', note))
    for i, way in enumerate(('forward', 'backward')):
        speed = numel * TRAFFIC[i] / ours[i] / 1e9
        rows.append(_row(f'{shape} {way} vs copy', speed,
                         numel * TRAFFIC[0] / copy[0] / 1e9, 'GB/s'))
        rows.append(_row(f'{shape} {way} vs SiLU', speed,
                         numel * TRAFFIC[i] / times['SiLU'][i] / 1e9,
                         'GB/s'))
    return rows


def _memory_rows() -> list:
    rows = []
    kinds = activations()
    x = torch.randn(1000, 100)
    for case, measure in (('kept for backward', saved_bytes),
                          ('peak of a step', peak_bytes)):
        ours = measure(kinds['ours'], x)
        for name, function in kinds.items():
            if name != 'ours':
                rows.append(_row(f'{case} vs {name}', ours,
                                 measure(function, x), 'bytes per element'))
    return rows


def _row(case: str, ours: float, theirs: float, unit: str,
         note: str = '') -> dict:
    return dict(case=case, ours=ours, theirs=theirs, ratio=ours / theirs,
                unit=unit, note=note)
