"""Run the Triton kernels in Triton's interpreter and compare with float64.

A script for a process of its own, since Triton decides at import:

    TRITON_INTERPRET=1 python triton_checks.py [check ...]

Every check raises AssertionError where a value or a gradient is wrong.
"""
import os
import sys

import torch
from support.reference import TOLERANCES, aglu_lambda_gradient, eta_tensor

from apa_mm.functional import aglu, apa, gumbel
from apa_mm.kernels import activation

FUNCTIONS = {
    'apa': apa,
    'aglu': aglu,
    'paper': lambda x, **kw: aglu(x, lambda_grad='paper', **kw),
    'gumbel': lambda x, lambd, **kw: gumbel(x, **kw)
}
SHAPES = [(1, ), (1023, ), (7, 3, 5, 5), (2, 3, 33, 34), (2, 70), (0, 3)]


def run(function, x, kappa, lambd, grad, name):
    leaves = [t.detach().clone(memory_format=torch.preserve_format)
              for t in (x, kappa, lambd)]
    for leaf in leaves:
        leaf.requires_grad_()
    out = function(leaves[0], kappa=leaves[1], lambd=leaves[2], backend=name)
    out.backward(grad)
    return out.detach(), *(t.grad for t in leaves)


def compare(name, x, kappa, lambd, grad, tolerance=1e-5):
    """Compare values and the three gradients with the float64 form."""
    got = run(FUNCTIONS[name], x, kappa, lambd, grad, 'triton')
    want = run(FUNCTIONS[name],
               *(t.double() for t in (x, kappa, lambd, grad)), 'eager')
    assert got[0].dtype == got[1].dtype == x.dtype
    assert got[0].stride() == got[1].stride() == x.stride()
    for a, b in zip(got, want, strict=True):
        if a is None or not a.numel():
            assert b is None or a.shape == b.shape
            continue
        scale = 1 + b.abs().max()
        torch.testing.assert_close(
            a.double() / scale, b / scale, rtol=tolerance, atol=tolerance)


def parameters(shape, per_channel):
    size = (1, )
    if per_channel:
        channels = shape[1] if len(shape) > 1 else shape[0]
        size = (channels, ) + (1, ) * max(0, len(shape) - 2)
    return torch.rand(size) * 2 - 0.5, torch.rand(size) + 1e-3


def check_shapes():
    for shape in SHAPES:
        for per_channel in (False, True):
            for name in FUNCTIONS:
                compare(name, torch.randn(shape) * 3,
                        *parameters(shape, per_channel), torch.randn(shape))


def check_channels_last():
    for shape in ((3, 5, 4, 6), (2, 40, 7, 7)):
        x = torch.randn(shape).to(memory_format=torch.channels_last)
        for per_channel in (False, True):
            for name in ('aglu', 'gumbel'):
                # The gradient is contiguous: backward has to align it.
                compare(name, x, *parameters(shape, per_channel),
                        torch.randn(shape))


def check_half_types():
    for dtype in (torch.float16, torch.bfloat16):
        x, grad = (torch.randn(4, 6, 7, 9).to(dtype) for _ in range(2))
        for per_channel in (False, True):
            for name in ('apa', 'aglu', 'gumbel'):
                compare(name, x, *parameters(x.shape, per_channel), grad,
                        TOLERANCES[dtype])


def check_small_lambda():
    """The plain form of the lambda gradient is 5 % off at 1e-4."""
    x = torch.linspace(-3, 6, 37)
    for lambd in (1e-4, 1e-3, 1e-2, 0.5, 5.):
        for z in x.tolist():
            _, _, _, grad = run(aglu, torch.tensor([z]), torch.tensor([1.]),
                                torch.tensor([lambd]), torch.ones(1), 'triton')
            want = aglu_lambda_gradient(z, 1., lambd)
            assert abs(grad.item() - want) <= 1e-4 * abs(want) + 1e-9, (
                lambd, z, grad.item(), want)
        out = apa(x, kappa=1., lambd=lambd, backend='triton').double()
        torch.testing.assert_close(
            out, eta_tensor(x, 1., lambd), rtol=2e-5, atol=1e-7)


def check_extremes():
    x = torch.tensor([-1e4, -89., 0., 89., 1e4])
    for name in FUNCTIONS:
        for result in run(FUNCTIONS[name], x, torch.tensor([1.]),
                          torch.tensor([1e-4]), torch.ones(5), 'triton'):
            assert result is None or result.isfinite().all()
        nan = run(FUNCTIONS[name], torch.full((3, ), torch.nan),
                  torch.tensor([1.]), torch.tensor([0.5]), torch.ones(3),
                  'triton')
        assert nan[0].isnan().all() and nan[1].isnan().all()
    ends = run(FUNCTIONS['gumbel'], torch.tensor([-torch.inf, torch.inf]),
               torch.tensor([1.]), torch.tensor([0.5]), torch.ones(2),
               'triton')
    assert ends[2].item() == 0


def check_repeats():
    """Sums do not change from run to run, and eta is not kept."""
    x, grad = torch.randn(3, 4, 30, 40), torch.randn(3, 4, 30, 40)
    for per_channel in (False, True):
        values = parameters(x.shape, per_channel)
        first = run(aglu, x, *values, grad, 'triton')
        for a, b in zip(first, run(aglu, x, *values, grad, 'triton'),
                        strict=True):
            assert torch.equal(a, b)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.append(t.numel()) or t, lambda t: t):
        aglu(x.requires_grad_(), kappa=1., lambd=.5, backend='triton')
    assert sorted(kept) == [1, 1, x.numel()]


def check_choice():
    """The kernels are what runs, and what they cannot walk goes elsewhere."""
    from apa_mm.kernels import apa_triton
    assert apa_triton.interpreted()
    calls = []
    forward = apa_triton.forward
    apa_triton.forward = lambda *a: calls.append(1) or forward(*a)
    aglu(torch.ones(2), kappa=1., lambd=1., backend='triton')
    assert len(calls) == 1
    os.environ['APA_MM_BACKEND'] = 'triton'
    aglu(torch.ones(2), kappa=1., lambd=1.)
    assert len(calls) == 2
    strided = torch.ones(4, 6)[:, ::2]
    for x in (strided, torch.ones(2).double()):
        aglu(x, kappa=1., lambd=1.)
    assert len(calls) == 2
    assert activation.choose_backend(torch.ones(2, device='meta')) == 'eager'
    del os.environ['APA_MM_BACKEND']
    apa_triton.forward = forward


CHECKS = {
    name[len('check_'):]: function
    for name, function in list(globals().items())
    if name.startswith('check_')
}

if __name__ == '__main__':
    torch.set_num_threads(1)
    for check in sys.argv[1:] or CHECKS:
        torch.manual_seed(0)
        CHECKS[check]()
        print(f'{check} passed', flush=True)
