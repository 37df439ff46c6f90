"""The compiled CPU form agrees with the eager one and with float64."""
import logging
import os
import subprocess
import sys

import pytest
import torch
from support.reference import TOLERANCES

from apa_mm.functional import aglu, apa, gumbel
from apa_mm.kernels import build, native

SHAPES = [(1, ), (1023, ), (7, 3, 5, 5), (2, 64), (5000, 3), (1, 2, 70, 71)]
FUNCTIONS = {
    'apa': apa,
    'exact': aglu,
    'paper': lambda x, **kw: aglu(x, lambda_grad='paper', **kw),
    'gumbel': lambda x, lambd, **kw: gumbel(x, **kw)
}
needs_compiler = pytest.mark.skipif(
    native.library() is None, reason='no C++ compiler on this machine')


def run(function, x, kappa, lambd, grad, **kwargs):
    leaves = [t.detach().clone().requires_grad_() for t in (x, kappa, lambd)]
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        leaves[0] = x.detach().clone(
            memory_format=torch.channels_last).requires_grad_()
    out = function(leaves[0], kappa=leaves[1], lambd=leaves[2], **kwargs)
    out.backward(grad)
    return out.detach(), *(t.grad for t in leaves)


@needs_compiler
@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('per_channel', [False, True])
@pytest.mark.parametrize('name', list(FUNCTIONS))
def test_float32_agrees_with_float64(shape, per_channel, name):
    function = FUNCTIONS[name]
    x, grad = torch.randn(shape) * 3, torch.randn(shape)
    size = (1, )
    if per_channel:
        channels = shape[1] if len(shape) > 1 else shape[0]
        size = (channels, ) + (1, ) * max(0, len(shape) - 2)
    kappa, lambd = torch.rand(size) * 2 - 0.5, torch.rand(size) + 1e-3
    got = run(function, x, kappa, lambd, grad, backend='native')
    want = run(
        function,
        *(t.double() for t in (x, kappa, lambd, grad)),
        backend='eager')
    for a, b in zip(got, want, strict=True):
        if b is None:  # the Gumbel gate has no lambda
            assert a is None
            continue
        assert a.dtype == torch.float32
        scale = 1 + b.abs().max()
        torch.testing.assert_close(
            a.double() / scale, b / scale, rtol=1e-5, atol=2e-6)


@needs_compiler
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('per_channel', [False, True])
@pytest.mark.parametrize('name', ['exact', 'gumbel'])
def test_half_types_agree_with_float64(dtype, per_channel, name):
    x, grad = (torch.randn(4, 6, 7, 9).to(dtype) for _ in range(2))
    size = (6, 1, 1) if per_channel else (1, )
    kappa, lambd = torch.rand(size) + 0.5, torch.rand(size) + 0.1
    function = FUNCTIONS[name]
    got = run(function, x, kappa, lambd, grad, backend='native')
    want = run(function, *(t.double() for t in (x, kappa, lambd, grad)))
    assert got[0].dtype == got[1].dtype == dtype
    for a, b in zip(got, want, strict=True):
        if b is None:
            continue
        tol = TOLERANCES[dtype]
        torch.testing.assert_close(
            a.double(), b, rtol=tol, atol=tol * b.abs().max().item())


@needs_compiler
@pytest.mark.parametrize('name', sorted(FUNCTIONS))
def test_every_nan_stays_one(name):
    bits = torch.tensor([0x7fc00000, 0x7fc00001, 0x7fffffff, -1, -(1 << 22)])
    x = bits.int().view(torch.float32).repeat(9)
    assert x.isnan().all()
    one = torch.ones(1)
    out, *_ = run(FUNCTIONS[name], x, one, one, x, backend='native')
    assert out.isnan().all()


@needs_compiler
@pytest.mark.parametrize('name', ['apa', 'exact'])
@pytest.mark.parametrize('which', [0, 1])
def test_a_parameter_that_is_nan_shows(name, which):
    parameters = [torch.ones(1), torch.ones(1)]
    parameters[which].fill_(torch.nan)
    x = torch.randn(70)
    out, grad, *_ = run(FUNCTIONS[name], x, *parameters, x, backend='native')
    assert out.isnan().all() and grad.isnan().all()


@needs_compiler
@pytest.mark.parametrize('name', ['apa', 'exact'])
def test_where_eta_ends_it_is_0(name):
    x = torch.tensor([-torch.inf, -1e30, -200., 200., torch.inf])
    one = torch.ones(1)
    out, grad, *_ = run(FUNCTIONS[name], x, one, one, torch.ones(5),
                        backend='native')
    high = x[3:] if name == 'exact' else torch.ones(2)
    assert torch.equal(out, torch.cat([torch.zeros(3), high]))
    slope = [0., 0., 0., 1., 1.] if name == 'exact' else [0.] * 5
    torch.testing.assert_close(grad, torch.tensor(slope), rtol=0, atol=2e-38)


@needs_compiler
def test_gumbel_at_the_ends_of_float32():
    x = torch.tensor([-1e4, -5., -4.4, 0., 80., 1e4, torch.nan])
    out, grad, *_ = run(
        FUNCTIONS['gumbel'], x, torch.ones(1), torch.ones(1), torch.ones(7),
        backend='native')
    assert out[:2].tolist() == [0, 0] and 0 < out[2] < 1e-35
    assert out[4:6].tolist() == [1, 1] and out[6].isnan()
    assert grad[0] == grad[5] == 0 and grad[6].isnan()
    torch.testing.assert_close(grad[3], torch.tensor(-1.).exp())


@needs_compiler
@pytest.mark.parametrize('name', ['apa', 'gumbel'])
@pytest.mark.parametrize('kappa', [-2., 0., 2.])
def test_an_infinite_input_of_a_gate(name, kappa):
    x = torch.tensor([-torch.inf, 0.5, torch.inf])
    got, want = (run(FUNCTIONS[name], x, torch.tensor([kappa]), torch.ones(1),
                     torch.ones(3), backend=backend)
                 for backend in ('native', 'eager'))
    assert want[2].isfinite()
    for a, b in zip(got[:3], want, strict=False):
        torch.testing.assert_close(a, b)


@needs_compiler
@pytest.mark.parametrize('per_channel', [False, True])
def test_channels_last_is_walked_without_a_copy(per_channel):
    x = torch.randn(3, 5, 4, 6).to(memory_format=torch.channels_last)
    size = (5, 1, 1) if per_channel else (1, )
    kappa, lambd = torch.rand(size) + 0.5, torch.rand(size) + 0.1
    grad = torch.randn(3, 5, 4, 6)  # contiguous: backward has to align it
    got = run(aglu, x, kappa, lambd, grad, backend='native')
    want = run(aglu, x.contiguous(), kappa, lambd, grad, backend='eager')
    for tensor in got[:2]:
        assert tensor.is_contiguous(memory_format=torch.channels_last)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@needs_compiler
def test_tensors_it_cannot_walk_go_to_the_eager_form():
    assert native.find_layout(torch.ones(4, 6)[:, ::2], None) is None
    assert native.find_layout(torch.ones(4, 6).t(), 0) is None
    assert native.find_layout(torch.ones(0, 3), None) is None
    assert native.find_layout(torch.ones(3).double(), None) is None
    x = torch.randn(4, 6)[:, ::2]
    torch.testing.assert_close(
        aglu(x, kappa=1., lambd=1.), torch.nn.functional.silu(x))


@needs_compiler
@pytest.mark.parametrize('per_channel', [False, True])
def test_gradients_do_not_depend_on_the_threads(per_channel):
    x, grad = torch.randn(2, 8, 120, 120), torch.randn(2, 8, 120, 120)
    size = (8, 1, 1) if per_channel else (1, )
    kappa, lambd = torch.rand(size) + 0.5, torch.rand(size) + 0.1
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(run(aglu, x, kappa, lambd, grad, backend='native'))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


@needs_compiler
def test_double_backward_leaves_the_kernel():
    x = torch.randn(5, requires_grad=True)
    grad, = torch.autograd.grad(
        aglu(x, kappa=1., lambd=1., backend='native').sum(),
        x,
        create_graph=True)
    second, = torch.autograd.grad(grad.sum(), x)
    y = x.detach().double().requires_grad_()
    first, = torch.autograd.grad(
        torch.nn.functional.silu(y).sum(), y, create_graph=True)
    want, = torch.autograd.grad(first.sum(), y)
    torch.testing.assert_close(second.double(), want, rtol=1e-4, atol=1e-5)


def test_backend_names_are_checked(monkeypatch):
    with pytest.raises(ValueError, match="backend must be one of.*'fast'"):
        apa(torch.ones(2), kappa=1., lambd=1., backend='fast')
    monkeypatch.setenv('APA_MM_BACKEND', 'cuda')
    with pytest.raises(ValueError, match='APA_MM_BACKEND must be one of'):
        apa(torch.ones(2), kappa=1., lambd=1.)


@needs_compiler
def test_environment_variable_chooses(monkeypatch):
    calls = []
    forward = native.forward
    monkeypatch.setattr(native, 'forward',
                        lambda *a: calls.append(1) or forward(*a))
    x = torch.ones(2)
    for value, count in (('eager', 0), ('native', 1), ('auto', 2), ('', 3)):
        monkeypatch.setenv('APA_MM_BACKEND', value)
        apa(x, kappa=1., lambd=1.)
        assert len(calls) == count
    apa(x, kappa=1., lambd=1., backend='eager')
    assert len(calls) == 3


CODE = """
import torch, logging
logging.basicConfig(level=logging.INFO)
from apa_mm.functional import aglu
from apa_mm.kernels import native
x = torch.linspace(-3, 3, 7)
for _ in range(2):
    y = aglu(x, kappa=1., lambd=1.)
print(native.library() is None, torch.allclose(y, x * torch.sigmoid(x)))
"""


@pytest.mark.parametrize('compiler, message', [
    ('none', 'no C++ compiler'),
    ('false', 'failed'),
])
def test_without_a_compiler_the_eager_form_runs(tmp_path, compiler, message):
    path = str(tmp_path)
    if compiler == 'false':
        stub = tmp_path / 'c++'
        stub.write_text('#!/bin/sh\necho version; [ "$1" = --version ]\n')
        stub.chmod(0o755)
        path = f'{tmp_path}:/bin:/usr/bin'
    env = dict(os.environ, PATH=path, XDG_CACHE_HOME=str(tmp_path / 'cache'))
    env.pop('CXX', None)
    result = subprocess.run([sys.executable, '-c', CODE],
                            capture_output=True,
                            text=True,
                            env=env)
    assert result.stdout.split()[-2:] == ['True', 'True'], result.stderr
    assert (result.stdout + result.stderr).count(message) == 1
    assert not list(tmp_path.glob('cache/apa_mm/native/*'))


@needs_compiler
def test_the_library_is_built_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    caplog.set_level(logging.INFO)
    build.library.cache_clear()
    try:
        assert native.library() is not None
        built, = (tmp_path / 'apa_mm/native').glob('*.so')
        stamp = built.stat().st_mtime_ns
        build.library.cache_clear()
        assert native.library() is not None
        assert built.stat().st_mtime_ns == stamp
    finally:
        monkeypatch.undo()
        build.library.cache_clear()
