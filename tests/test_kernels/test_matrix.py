"""Every module under every tracer and every way to a derivative."""
import copy
import functools
import io
import math
import pickle
import re
import warnings
from pathlib import Path

import pytest
import torch
import torch.autograd.functional as AF
from support.reference import eta
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.func import (functional_call, hessian, jacfwd, jacrev, jvp, vjp,
                        vmap)
from torch.fx.experimental.proxy_tensor import make_fx

from apa_mm.backbones.resnet_blocks import BasicBlock
from apa_mm.functional import aglu, gol_loss, gumbel
from apa_mm.kernels import native
from apa_mm.layers import (AGLU, APA, Gumbel, TemperedGumbel,
                           fused_block_end, fused_norm_act)

KAPPA, LAMBD, FLOOR = 1.2, 0.3, 1e-4
SHAPE = (2, 3, 4, 5)


class GOL(nn.Module):

    def __init__(self):
        super().__init__()
        self.register_buffer('labels', torch.arange(SHAPE[0]))

    def forward(self, x):
        return gol_loss(x.flatten(1), self.labels)


def gol_value(row, label):
    total = 0.
    for j, z in enumerate(row):
        p = math.exp(-math.exp(-min(max(z, -10), 10)))
        total -= math.log(p if j == label else 1 - p)
    return total


#: Name: module, function of one number in Python's own floats.
MODULES = {
    'AGLU': (lambda: AGLU(1, KAPPA, LAMBD),
             lambda z: z * eta(z, KAPPA, LAMBD)),
    'AGLU per channel': (lambda: AGLU(3, KAPPA, LAMBD),
                         lambda z: z * eta(z, KAPPA, LAMBD)),
    'AGLU below its floor': (lambda: AGLU(1, KAPPA, -.5),
                             lambda z: z * eta(z, KAPPA, FLOOR)),
    'AGLU as printed': (lambda: AGLU(1, KAPPA, LAMBD, lambda_grad='paper'),
                        lambda z: z * eta(z, KAPPA, LAMBD)),
    'APA': (lambda: APA(1, KAPPA, LAMBD), lambda z: eta(z, KAPPA, LAMBD)),
    'Gumbel': (Gumbel, lambda z: math.exp(-math.exp(-z))),
    'TemperedGumbel': (lambda: TemperedGumbel(kappa_init=KAPPA),
                       lambda z: math.exp(-math.exp(-KAPPA * z))),
    'GOL': (GOL, None),
}


def want(name, x):
    """Return the value of a module in float64, by loops."""
    if name == 'GOL':
        return torch.tensor([gol_value(row, i) for i, row in
                             enumerate(x.double().flatten(1).tolist())],
                            dtype=torch.float64)
    values = map(MODULES[name][1], x.double().flatten().tolist())
    return torch.tensor(list(values), dtype=torch.float64).reshape(x.shape)


# --- what README.md says ----------------------------------------------------
def read_table():
    """Return the two cells, the modules' and GOL's, of every item."""
    text = (Path(__file__).parents[2] / 'README.md').read_text()
    rows = text.split('| | AGLU, APA, Gumbel | GOL |\n', 1)[1]
    rows = re.match(r'(\|.*\n)+', rows)[0].splitlines()[1:]
    cells = [[cell.strip() for cell in row.strip('|').split(' | ')]
             for row in rows]
    return {item: said for items, *said in cells for item in items.split(', ')}


TABLE = read_table()


def told(name, item):
    """Return what README.md says of a module."""
    return TABLE[item][name == 'GOL']


# --- tracers ----------------------------------------------------------------
def compiled(module, x, **kwargs):
    torch._dynamo.reset()
    run = torch.compile(module, backend='aot_eager', fullgraph=True, **kwargs)
    leaf, twin = (x.clone().requires_grad_() for _ in range(2))
    out = run(leaf)
    out.sum().backward()
    grads = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    module(twin).sum().backward()
    for a, b in zip([leaf.grad, *grads],
                    [twin.grad, *(p.grad for p in module.parameters())],
                    strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    if kwargs:  # another size, the same graph
        run(x[:, :, :2].contiguous())
        run(x[:, :, :3].contiguous())
    return out


def exported(module, x, strict=True):
    program = torch.export.export(module, (x, ), strict=strict)
    targets = [str(n.target) for n in program.graph.nodes
               if n.op == 'call_function']
    assert all(t.startswith('aten.') for t in targets), targets
    return program.module()(x)


def saved_trace(module, x):
    file = io.BytesIO()
    with warnings.catch_warnings():  # no part of a network looks at sizes
        warnings.filterwarnings('error', category=torch.jit.TracerWarning,
                                module=r'apa_mm\.(functional\.apa|layers)')
        traced = torch.jit.trace(module, x)
    assert not re.search(r'= \^', str(traced.inlined_graph))
    torch.jit.save(traced, file)
    file.seek(0)
    return torch.jit.load(file)(x)


def fake(module, x):
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        out = module(mode.from_tensor(x))
    real = module(x)
    assert out.shape == real.shape and out.dtype == real.dtype
    return real


def meta(module, x):
    with torch.device('meta'):
        made = copy.deepcopy(module).to('meta')
        assert made(x.to('meta')).shape == module(x).shape
        return module(x)  # and real tensors within it


def autocast(module, x):
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        return module(x)


def saved(module, x):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)(x)


TRACERS = {
    'eager': lambda m, x: m(x),
    'no_grad': torch.no_grad()(lambda m, x: m(x)),
    'inference_mode': torch.inference_mode()(lambda m, x: m(x)),
    'compile': compiled,
    'compile dynamic': lambda m, x: compiled(m, x, dynamic=True),
    'export': exported,
    'export without dynamo': lambda m, x: exported(m, x, False),
    'export in no_grad': torch.no_grad()(exported),
    'trace and save': saved_trace,
    'fx': lambda m, x: torch.fx.symbolic_trace(nn.Sequential(m))(x),
    'make_fx': lambda m, x: make_fx(m)(x)(x),
    'make_fx symbolic': lambda m, x: make_fx(
        m, tracing_mode='symbolic', _allow_non_fake_inputs=True)(x)(x),
    'fake': fake,
    'meta': meta,
    'vmap': lambda m, x: vmap(m, 1, 1)(torch.stack([x + 1, x], 1))[:, 1],
    'autocast': autocast,
    'deepcopy': lambda m, x: copy.deepcopy(m)(x),
    'pickle': lambda m, x: pickle.loads(pickle.dumps(m))(x),
    'torch.save': saved,
}
#: Item of README.md's table: tracers that hold it.
ITEMS = {
    'eager': ['eager'],
    '`no_grad`': ['no_grad'],
    '`inference_mode`': ['inference_mode'],
    'autocast': ['autocast'],
    'meta': ['meta'],
    'FakeTensor': ['fake'],
    '`torch.compile` static and dynamic': ['compile', 'compile dynamic'],
    '`torch.export`': [
        'export', 'export without dynamo', 'export in no_grad'],
    '`jit.trace` and save': ['trace and save'],
    '`make_fx`': ['make_fx', 'make_fx symbolic'],
    '`vmap`': ['vmap'],
    'deepcopy': ['deepcopy'],
    'pickle': ['pickle'],
    '`torch.save`': ['torch.save'],
    '`fx.symbolic_trace` (of `APAResNet` too)': ['fx'],
    'ONNX (`dynamo=False`) with standard operators only': ['onnx'],
}
#: What other tests here hold, each named by its item.
DERIVATIVES = ('`jvp`', '`vjp`', '`jacrev`', 'hessian')
WITHOUT_SECOND = (
    "hessian through fused layers or below lambda's floor")
REFUSALS = {'fx': torch.fx.proxy.TraceError,
            'onnx': torch.onnx.errors.UnsupportedOperatorError}


def test_every_item_of_the_table_is_held():
    assert set(TABLE) == {*ITEMS, *DERIVATIVES, WITHOUT_SECOND}
    held = [case for cases in ITEMS.values() for case in cases]
    assert sorted(held) == sorted([*TRACERS, 'onnx'])


def holds(name, tracer, run, device='cpu'):
    """Compare ``run(module, x)`` with what README.md says of it."""
    item, = (item for item, cases in ITEMS.items() if tracer in cases)
    module, x = MODULES[name][0]().to(device), torch.randn(SHAPE) * 2
    if told(name, item) == 'no':
        with pytest.raises(REFUSALS[tracer]):
            run(module, x.to(device))
        return
    assert told(name, item) == 'yes'
    torch.testing.assert_close(
        run(module, x.to(device)).detach().cpu().double(), want(name, x),
        rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('device', ['cpu', pytest.param(
    'cuda', marks=pytest.mark.skipif(
        not torch.cuda.is_available(), reason='no GPU on this machine'))])
@pytest.mark.parametrize('tracer', list(TRACERS))
@pytest.mark.parametrize('name', list(MODULES))
def test_values(name, tracer, device):
    holds(name, tracer, TRACERS[tracer], device)


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('name', list(MODULES))
def test_onnx_without_the_pass_that_unrolls_functions(name, training,
                                                      monkeypatch):
    """As mmdeploy exports: it switches that pass off."""
    ort = pytest.importorskip('onnxruntime')
    monkeypatch.setattr(torch._C, '_jit_pass_onnx_autograd_function_process',
                        lambda graph: None)

    def run(module, x):
        file = io.BytesIO()
        torch.onnx.export(module.train(training), (x, ), file,
                          dynamo=False, opset_version=17, input_names=['x'],
                          training=torch.onnx.TrainingMode.PRESERVE)
        session = ort.InferenceSession(
            file.getvalue(), providers=['CPUExecutionProvider'])
        return torch.from_numpy(session.run(None, {'x': x.numpy()})[0])

    holds(name, 'onnx', run)


# --- derivatives ------------------------------------------------------------
def square_sum(module, x):
    """Return a function of x and the parameters, and their values."""
    values = dict(module.named_parameters())

    def function(*args):
        named = dict(zip(values, args[1:], strict=True))
        out = functional_call(module, named, args[:1])
        return out.square().sum()

    return function, (x, *(v.detach().clone() for v in values.values()))


def difference(function, args, step=1e-5):
    """Return the gradient of a scalar function by central differences."""
    grads = []
    for i, arg in enumerate(args):
        grad = torch.zeros(arg.numel(), dtype=torch.float64)
        for j in range(arg.numel()):
            ends = []
            for sign in (1, -1):
                moved = arg.clone().flatten()
                moved[j] += sign * step
                ends.append(function(*args[:i], moved.view_as(arg),
                                     *args[i + 1:]))
            grad[j] = ((ends[0] - ends[1]) / (2 * step)).item()
        grads.append(grad)
    return torch.cat(grads)


def flat(blocks):
    """Return a Hessian in blocks as one matrix."""
    size = [math.isqrt(row[i].numel()) for i, row in enumerate(blocks)]
    return torch.cat([
        torch.cat([b.reshape(size[i], size[j]) for j, b in enumerate(row)], 1)
        for i, row in enumerate(blocks)
    ])


ROUTES = {
    'reverse over reverse': lambda f, a, n: jacrev(jacrev(f, n), n)(*a),
    'forward over reverse': lambda f, a, n: hessian(f, n)(*a),
    'reverse over forward': lambda f, a, n: jacrev(jacfwd(f, n), n)(*a),
    'autograd.functional': lambda f, a, n: AF.hessian(f, a),
    'vectorised': lambda f, a, n: AF.hessian(f, a, vectorize=True),
    'outer forward': lambda f, a, n: AF.hessian(
        f, a, vectorize=True, outer_jacobian_strategy='forward-mode'),
}


@pytest.mark.parametrize('route', list(ROUTES))
@pytest.mark.parametrize('name', ['AGLU', 'AGLU per channel', 'APA', 'Gumbel',
                                  'TemperedGumbel'])
def test_hessians(name, route):
    """Second derivatives are differences of the first, of float64 values."""
    assert told(name, 'hessian') == 'yes'
    module = MODULES[name][0]().double()
    x = torch.randn(1, 3, 2, dtype=torch.float64)
    function, args = square_sum(module, x)
    places = tuple(range(len(args)))
    got = flat(ROUTES[route](function, args, places))
    first = jacrev(function, places)
    row = 0
    for i, arg in enumerate(args):
        for j in range(arg.numel()):
            expected = difference(
                lambda *a, i=i, j=j: first(*a)[i].flatten()[j], args)
            torch.testing.assert_close(
                got[row], expected, rtol=1e-6, atol=1e-6)
            row += 1
    assert got.abs().sum(1).min() > 0  # no row is silently zero


@pytest.mark.parametrize('name', list(MODULES))
def test_first_derivatives(name):
    """Of each way, against differences of values by loops."""
    module = MODULES[name][0]().double()
    x, tangent = torch.randn((2, ) + SHAPE, dtype=torch.float64)
    out, back = module(x), torch.randn_like(module(x))
    slopes = difference(
        lambda x: (want(name, x) * back).sum(), (x, )).reshape(SHAPE)
    close = functools.partial(
        torch.testing.assert_close, rtol=1e-6, atol=1e-7)
    assert {told(name, item) for item in ('`jvp`', '`vjp`', '`jacrev`')} \
        == {'yes'}
    close(vjp(module, x)[1](back)[0], slopes)
    rows = jacrev(module)(x).reshape(out.numel(), x.numel())
    close(back.flatten() @ rows, slopes.flatten())
    if name == 'AGLU as printed':
        return  # see test_what_has_no_second_derivative_says_so
    moved = jvp(module, (x, ), (tangent, ))[1]
    close((moved * back).sum(), (slopes * tangent).sum())
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        unpacked = torch.autograd.forward_ad.unpack_dual(module(dual))
    close(unpacked.tangent, moved)


def test_second_derivatives_of_gol():
    assert told('GOL', 'hessian') == 'by `torch.func`'
    scores = torch.randn(2, 3, dtype=torch.float64)
    labels = torch.tensor([1, 3])
    got = hessian(lambda s: gol_loss(s, labels).sum())(scores).reshape(6, 6)
    for i, (s, target) in enumerate(zip(
            scores.flatten().tolist(), (0, 1, 0, 0, 0, 0), strict=True)):
        step, e = 1e-4, lambda v: math.exp(-v)
        loss = e if target else lambda v: -math.log(-math.expm1(-math.exp(-v)))
        second = (loss(s + step) - 2 * loss(s) + loss(s - step)) / step**2
        assert got[i, i].item() == pytest.approx(second, rel=1e-4, abs=1e-6)
    assert got.count_nonzero() == 6


def test_what_has_no_second_derivative_says_so():
    said, = set(TABLE[WITHOUT_SECOND]) - {''}
    assert said == 'by `torch.func`; else an error that says what to set'
    x = torch.randn(3, dtype=torch.float64)
    low = AGLU(lambd_init=-.5).double()
    with pytest.raises(RuntimeError, match='below its lower bound 0.0001'):
        AF.hessian(lambda v: functional_call(
            low, dict(lambd=v), (x, )).sum(), low.lambd.detach())
    leaf = torch.randn(2, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match='no second derivative.*torch.func'):
        torch.autograd.grad(gol_loss(leaf, torch.tensor([0, 3])).sum(), leaf,
                            create_graph=True)
    with pytest.raises(RuntimeError, match="use lambda_grad='exact'"):
        jvp(AGLU(lambda_grad='paper'), (torch.ones(2), ), (torch.ones(2), ))


def second(route, block, x):
    """Return the Hessian of a block, or its product with ones, flat."""
    v = () if route is AF.hessian else (torch.ones_like(x), )
    found = route(lambda x: block(x).square().sum(), x, *v)
    return (found if route is AF.hessian else found[1]).flatten()


@pytest.mark.skipif(
    native.library() is None, reason='no C++ compiler on this machine')
@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('route', [AF.hessian, AF.hvp, AF.vhp],
                         ids=lambda route: route.__name__)
def test_second_derivatives_through_fused_layers(route, training, monkeypatch):
    """They are there, or what the error names brings them."""
    gate = dict(type='apa_mm.ChannelAttention', reduction=2, dropout=0.)
    block = BasicBlock(4, 4, attention_cfg=gate).train(training)
    single = torch.randn(2, 4, 3, 3)
    error = pytest.raises(
        RuntimeError, match="set fuse=False.* or APA_MM_BACKEND='eager'")
    with error:
        second(route, block, single)
    with monkeypatch.context() as patch:
        patch.setenv('APA_MM_BACKEND', 'eager')
        apart = second(route, block, single)
    block, x = block.double(), single.double()
    block.fuse = True
    with error:
        second(route, block, x)

    def slope(x):
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(block(leaf).square().sum(), leaf)[0]

    step = 1e-5 * torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape)
    matrix = torch.stack([
        (slope(x + s) - slope(x - s)).flatten() / 2e-5 for s in step])
    want = matrix.flatten() if route is AF.hessian else matrix.sum(1)
    assert matrix.abs().sum(1).min() > 0
    close = functools.partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
    if not training:  # torch.func refuses to count a batch
        got = hessian(lambda x: block(x).square().sum())(x)
        close(got.view_as(matrix), matrix)
    block.fuse = False
    close(second(route, block, x), want)
    scale = want.abs().max()
    close(apart.double() / scale, want / scale, atol=1e-3)


@pytest.mark.parametrize('end', [False, True])
def test_each_fused_layer_refuses_for_itself(end):
    norm, unit = nn.BatchNorm2d(3), AGLU()
    x = torch.randn(SHAPE, requires_grad=True)
    out = fused_block_end(norm, None, unit, x, x) if end else fused_norm_act(
        norm, unit, x)
    with pytest.raises(RuntimeError, match='set fuse=False'):
        torch.autograd.grad(out.sum(), x, create_graph=True)


def test_below_the_floor_torch_func_sees_the_identity():
    module = AGLU(1, KAPPA, -.5).double()
    at_floor = AGLU(1, KAPPA, FLOOR).double()
    x = torch.randn(5, dtype=torch.float64)
    for route in ('reverse over reverse', 'forward over reverse'):
        results = []
        for unit in (module, at_floor):
            function, args = square_sum(unit, x)
            places = tuple(range(len(args)))
            results.append(flat(ROUTES[route](function, args, places)))
        torch.testing.assert_close(*results)
        assert results[0][-1].abs().min() > 0


@pytest.mark.parametrize('mode', ['exact', 'paper'])
def test_compiled_gradients_of_func_keep_the_mode(mode):
    torch._dynamo.reset()
    unit = AGLU(1, KAPPA, LAMBD, lambda_grad=mode)
    x = torch.randn(7)
    values = {k: v.detach() for k, v in unit.named_parameters()}

    def loss(values):
        return functional_call(unit, values, (x, )).sum()

    got = torch.compile(torch.func.grad(loss), backend='eager',
                        fullgraph=True)(values)
    unit(x).sum().backward()
    for name, parameter in unit.named_parameters():
        torch.testing.assert_close(
            got[name], parameter.grad, rtol=1e-4, atol=1e-5)


# --- tensors that are not their memory --------------------------------------
@pytest.mark.parametrize('backend', ['auto', 'eager'])
def test_pending_negation(backend):
    plain = torch.randn(4, 3)
    x = torch._neg_view(plain)  # as z.conj().imag is, but dense
    assert x.is_neg() and x.is_contiguous()
    unit = AGLU(1, KAPPA, LAMBD)
    torch.testing.assert_close(
        aglu(x, kappa=unit.kappa, lambd=unit.lambd, backend=backend).double(),
        want('AGLU', x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gumbel(x).double(), want('Gumbel', x),
                               rtol=1e-5, atol=1e-6)
    negative = torch._neg_view(torch.full((1, ), -KAPPA))
    torch.testing.assert_close(
        aglu(plain, kappa=negative, lambd=unit.lambd).double(),
        want('AGLU', plain), rtol=1e-5, atol=1e-6)


def test_symbolic_zeros():
    x = torch._efficientzerotensor((2, 3))
    torch.testing.assert_close(gumbel(x), torch.full((2, 3), math.exp(-1)))


@pytest.mark.parametrize('backend', ['auto', 'eager'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('kappa, at_low, at_high', [
    (1.2, 0., 'x'), (-1.2, 'x', 0.), (0., 'x', 'x')])
def test_the_ends_of_the_numbers(backend, dtype, kappa, at_low, at_high):
    x = torch.tensor([-math.inf, -3e38, 3e38, math.inf], dtype=dtype)
    x.requires_grad_()
    leaves = [torch.tensor([v], requires_grad=True) for v in (kappa, LAMBD)]
    out = aglu(x, kappa=leaves[0], lambd=leaves[1], backend=backend)
    share = eta(0., 0., LAMBD) if kappa == 0 else 1.
    for i, end in enumerate((at_low, at_low, at_high, at_high)):
        expected = end if end == 0. else x[i].item() * share
        assert out[i].item() == pytest.approx(expected, rel=1e-2)
    grad, = torch.autograd.grad(out.sum(), x, retain_graph=True)
    assert grad.isfinite().all()
    vanishing = [i for i, end in enumerate((at_low, at_low, at_high, at_high))
                 if end == 0.]
    aglu(x.detach()[vanishing], kappa=leaves[0], lambd=leaves[1],
         backend=backend).float().sum().backward()
    assert all(leaf.grad.item() == 0 for leaf in leaves)
