"""The ``torch.compile`` form, and what happens where it fails."""
import logging

import pytest
import torch
from support.reference import TOLERANCES

from apa_mm.functional import aglu, apa, gumbel, inductor

FUNCTIONS = {
    'apa': apa,
    'aglu': aglu,
    'paper': lambda x, **kw: aglu(x, lambda_grad='paper', **kw),
    'gumbel': lambda x, lambd, **kw: gumbel(x, **kw)
}


@pytest.fixture
def compiler(monkeypatch):
    """Put another compiler in the place of torch's."""

    def use(function):
        inductor._compiled.cache_clear()
        monkeypatch.setattr(torch, 'compile', function)

    yield use
    inductor._compiled.cache_clear()


def run(function, x, kappa, lambd, grad, backend):
    leaves = [t.detach().clone(memory_format=torch.preserve_format)
              for t in (x, kappa, lambd)]
    for leaf in leaves:
        leaf.requires_grad_()
    out = function(
        leaves[0], kappa=leaves[1], lambd=leaves[2], backend=backend)
    out.backward(grad)
    return out.detach(), *(t.grad for t in leaves)


def compare(name, x, size):
    grad = torch.randn(x.shape).to(x.dtype)
    kappa, lambd = torch.rand(size) + 0.5, torch.rand(size) + 0.1
    values = (x, kappa, lambd, grad)
    got = run(FUNCTIONS[name], *values, 'compile')
    want = run(FUNCTIONS[name], *(t.double() for t in values), 'eager')
    assert got[0].dtype == got[1].dtype == x.dtype
    assert got[0].stride() == got[1].stride() == x.stride()
    tolerance = TOLERANCES[x.dtype]
    for a, b in zip(got, want, strict=True):
        if a is None:
            assert b is None
            continue
        scale = 1 + b.abs().max()
        torch.testing.assert_close(
            a.double() / scale, b / scale, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('name', list(FUNCTIONS))
@pytest.mark.parametrize('shape, size', [((1023, ), 1), ((7, 3, 5, 5), 1),
                                         ((7, 3, 5, 5), (3, 1, 1)),
                                         ((6, 4), (4, ))])
def test_views_and_sums(name, shape, size, compiler):
    calls = []
    compiler(lambda f, dynamic: calls.append(dynamic) or f)
    compare(name, torch.randn(shape), size)
    assert calls == [True, True]  # one forward, one backward function


def test_channels_last_and_half_types(compiler):
    compiler(lambda f, dynamic: f)
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    for size in (1, (3, 1, 1)):
        compare('aglu', x, size)
        compare('aglu', x.bfloat16(), size)
    compare('aglu', torch.randn(2, 3, 4)[1], 1)  # an offset in its memory


def test_a_compiler_that_fails_is_asked_once(compiler, caplog):
    calls = []

    def broken(function, dynamic):
        return lambda *a: calls.append(1) or 1 / 0

    compiler(broken)
    caplog.set_level(logging.INFO, inductor.__name__)
    for _ in range(2):
        compare('aglu', torch.randn(9), 1)
    assert len(calls) == 2  # once forward, once backward
    assert caplog.text.count('eager form: division by zero') == 2


def test_one_graph_serves_every_length(compiler):
    compile_ = torch.compile
    compiler(lambda f, dynamic: compile_(
        f, dynamic=dynamic, fullgraph=True, backend='aot_eager'))
    torch._dynamo.reset()
    before = torch._dynamo.utils.counters['stats']['unique_graphs']
    for length in (1023, 64):
        x = torch.randn(length)
        torch.testing.assert_close(
            aglu(x, kappa=1., lambd=1., backend='compile'),
            torch.nn.functional.silu(x))
    after = torch._dynamo.utils.counters['stats']['unique_graphs']
    assert after - before == 1
