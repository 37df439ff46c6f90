"""The joined forms equal the separate layers and keep less memory."""
import copy

import pytest
import torch
from mmcv.cnn import fuse_conv_bn
from torch import nn
from torch.overrides import TorchFunctionMode

from apa_mm.backbones import APAResNet
from apa_mm.kernels import fused, native, native_fused
from apa_mm.layers import (AGLU, ChannelAttention, can_fuse, fused_block_end,
                           fused_norm_act, may_overwrite)

needs_compiler = pytest.mark.skipif(
    native.library() is None, reason='no C++ compiler on this machine')
DTYPES = [torch.float64, torch.float32]


def norm_layer(channels, training, dtype):
    norm = nn.BatchNorm2d(channels).to(dtype)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.uniform_(norm.bias, -1, 1)
    nn.init.uniform_(norm.running_mean, -1, 1)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return norm.train(training)


def compare(modules, fused, separate, inputs, dtype):
    """Run both forms on copies and compare values, gradients and buffers."""
    results = []
    for function in (fused, separate):
        copies = copy.deepcopy(modules)
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        torch.manual_seed(5)
        out = function(copies, *leaves)
        torch.manual_seed(6)
        out.backward(torch.randn(out.shape).to(out))
        tensors = [out] + [x.grad for x in leaves]
        tensors += [p.grad for p in copies.parameters()]
        tensors += [b.to(dtype) for b in copies.buffers()]
        results.append(tensors)
    tol = 1e-10 if dtype == torch.float64 else 1e-4
    for got, want in zip(*results, strict=True):
        assert (got is None) == (want is None)
        if got is not None:
            scale = 1 + want.abs().max()
            torch.testing.assert_close(
                got / scale, want / scale, rtol=tol, atol=tol)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('per_channel', [False, True])
@pytest.mark.parametrize('lambda_grad', ['exact', 'paper'])
def test_norm_act(dtype, training, per_channel, lambda_grad):
    unit = AGLU(6 if per_channel else 1, lambda_grad=lambda_grad).to(dtype)
    modules = nn.ModuleList([norm_layer(6, training, dtype), unit])
    x = torch.randn(4, 6, 9, 11).to(dtype) * 2 + 1
    compare(modules, lambda m, x: fused_norm_act(*m, x),
            lambda m, x: m[1](m[0](x)), [x], dtype)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('attention', ['none', 'se', 'apa'])
@pytest.mark.parametrize('project', [False, True])
def test_block_end(dtype, training, attention, project):
    modules = nn.ModuleDict(
        dict(norm=norm_layer(16, training, dtype), act=AGLU().to(dtype)))
    if attention == 'se':
        modules['attention'] = ChannelAttention(
            16, gate_cfg=dict(type='Sigmoid'), norm_cfg=None, dropout=0.)
    elif attention == 'apa':
        modules['attention'] = ChannelAttention(16).train(training)
    if project:
        modules['shortcut'] = nn.Sequential(
            nn.Conv2d(8, 16, 1, bias=False), norm_layer(16, training, dtype))
    modules = modules.to(dtype)

    def parts(m):
        return [
            m[k] if k in m else None
            for k in ('norm', 'attention', 'act', 'shortcut')
        ]

    def fused(m, x, identity):
        norm, attention, act, shortcut = parts(m)
        if shortcut:
            return fused_block_end(norm, attention, act, x,
                                   shortcut[0](identity), shortcut[1])
        return fused_block_end(norm, attention, act, x, identity)

    def separate(m, x, identity):
        norm, attention, act, shortcut = parts(m)
        out = norm(x)
        out = out if attention is None else attention(out)
        return act(out + (shortcut(identity) if shortcut else identity))

    x = torch.randn(3, 16, 6, 7).to(dtype) + 0.5
    identity = torch.randn(3, 8 if project else 16, 6, 7).to(dtype)
    compare(modules, fused, separate, [x, identity], dtype)
    if not training:
        with torch.no_grad():
            got = fused(modules, x, identity)
            want = separate(modules, x, identity)
        assert got.dtype == want.dtype
        tol = 1e-10 if dtype == torch.float64 else 1e-4
        torch.testing.assert_close(got, want, rtol=tol, atol=tol)


@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('norm_eval', [False, True])
def test_whole_networks_agree(depth, dtype, norm_eval):
    torch.manual_seed(1)
    model = APAResNet(depth, norm_eval=norm_eval).to(dtype).train()
    grads = []
    for fuse in (True, False):
        run = copy.deepcopy(model)
        for module in run.modules():
            if hasattr(module, 'fuse'):
                module.fuse = fuse
        torch.manual_seed(2)
        x = torch.rand(2, 3, 64, 64).to(dtype)
        out = run(x)[-1]
        out.square().mean().backward()
        grads.append([out] + [p.grad for p in run.parameters()] +
                     list(run.buffers()))
        assert list(run.state_dict()) == list(model.state_dict())
    tol = 1e-9 if dtype == torch.float64 else 2e-2
    for got, want in zip(*grads, strict=True):
        scale = want.abs().max() + 1e-6
        torch.testing.assert_close(
            got / scale, want / scale, rtol=tol, atol=tol)


def saved_bytes(model, x):
    """Return the bytes of distinct storages that the backward pass keeps."""
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}
    known |= {b.untyped_storage().data_ptr() for b in model.buffers()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = model(x)
    total = sum(size for size, _ in kept.values())
    del out
    return total


def test_memory_is_that_of_relu():
    se = dict(
        type='apa_mm.ChannelAttention',
        gate_cfg=dict(type='Sigmoid'),
        norm_cfg=None,
        dropout=0.)
    x = torch.rand(2, 3, 64, 64)
    relu = saved_bytes(
        APAResNet(50, act_cfg=dict(type='ReLU', inplace=True),
                  attention_cfg=se).train(), x)
    fused = saved_bytes(APAResNet(50, fuse=True).train(), x)
    separate = saved_bytes(APAResNet(50, fuse=False).train(), x)
    assert separate > 1.3 * relu
    assert fused < 1.05 * relu


def test_norm_act_keeps_its_input_alone():
    x = torch.randn(2, 8, 5, 5, requires_grad=True)
    pair = nn.ModuleList([nn.BatchNorm2d(8), AGLU()])

    class Pair(nn.Module):

        def __init__(self):
            super().__init__()
            self.pair = pair

        def forward(self, x):
            return fused_norm_act(*self.pair, x)

    extra = saved_bytes(Pair(), x) - x.numel() * 4
    # Mean and 1 / std (8 floats each), kappa and lambda as views or copies.
    assert 0 <= extra <= (2 * 8 + 2) * 4


def test_the_block_end_keeps_its_inputs_alone():
    class End(nn.Module):

        def __init__(self):
            super().__init__()
            self.norm, self.act = nn.BatchNorm2d(16), AGLU()
            self.attention = ChannelAttention(16)

        def forward(self, inputs):
            return fused_block_end(self.norm, self.attention, self.act,
                                   *inputs)

    x, identity = torch.randn(2, 2, 16, 40, 40, requires_grad=True).unbind()
    extra = saved_bytes(End(), (x, identity)) - x.numel() * 4 * 2
    # Vectors of 16 channels for two images: pooled, hidden, gates and so on.
    assert 0 <= extra < x.numel() * 4 / 8


def test_a_block_end_can_be_differentiated_twice_over():
    """With retain_graph, and with inputs that need no gradient."""
    norm, act = norm_layer(4, True, torch.float32), AGLU()
    attention = ChannelAttention(4, reduction=2, dropout=0.)
    x, identity = torch.randn(2, 2, 4, 5, 5).unbind()
    out = fused_block_end(norm, attention, act, x, identity).square().sum()
    out.backward(retain_graph=True)
    once = [p.grad.clone() for p in (*norm.parameters(), *act.parameters(),
                                     *attention.parameters())]
    out.backward()
    twice = [p.grad for p in (*norm.parameters(), *act.parameters(),
                              *attention.parameters())]
    for a, b in zip(once, twice, strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(2 * a, b)


def gates_of_a_block_end(dtype, training, x, fuse):
    """Return the gates within a block end, and the leaves they depend on."""
    torch.manual_seed(3)
    attention = ChannelAttention(4, reduction=1, dropout=0.).to(dtype)
    norm, act = norm_layer(4, training, dtype), AGLU().to(dtype)
    found = []
    attention.gate.register_forward_hook(lambda *call: found.append(call[2]))
    if fuse:
        fused_block_end(norm, attention, act, x, torch.zeros_like(x))
    else:
        attention(norm(x))
    return found[0], (x, *norm.parameters(), *attention.parameters())


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('training', [True, False])
def test_a_loss_on_the_gates_alone(dtype, training):
    x = (torch.randn(2, 4, 5, 5, dtype=dtype) + 1).requires_grad_()
    results = []
    for fuse in (True, False):
        gates, leaves = gates_of_a_block_end(dtype, training, x, fuse)
        results.append(torch.autograd.grad(gates.square().sum(), leaves))
    for got, want in zip(*results, strict=True):
        assert want.abs().max() > 0
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-6)
    gates, _ = gates_of_a_block_end(dtype, training, x, True)
    with pytest.raises(RuntimeError, match='second derivative'):
        torch.autograd.grad(gates.sum(), x, create_graph=True)


@pytest.mark.parametrize('end', [True, False])
def test_gradients_that_are_more_than_their_memory(end):
    """A negated view holds other values than it stands for."""
    norm, act = norm_layer(4, True, torch.float32), AGLU()
    x = torch.randn(2, 4, 5, 5, requires_grad=True)
    grad = torch.randn_like(x)
    out = fused_block_end(norm, None, act, x, x) if end else fused_norm_act(
        norm, act, x)
    want, = torch.autograd.grad(out, x, -grad, retain_graph=True)
    got, = torch.autograd.grad(out, x, torch._neg_view(grad))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize('end', [True, False])
def test_an_infinite_input_of_a_fixed_norm(end):
    norm, act = norm_layer(4, False, torch.float32), AGLU()
    x = torch.randn(2, 4, 5, 5)
    x[0, :2, 0, 0] = torch.tensor([torch.inf, -torch.inf])
    x.requires_grad_()
    zeros = torch.zeros_like(x)
    out = fused_block_end(norm, None, act, x, zeros) if end \
        else fused_norm_act(norm, act, x)
    got, = torch.autograd.grad(out.sum(), x)
    want, = torch.autograd.grad(act(norm(x) + zeros).sum(), x)
    assert want.isfinite().all()
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize('training', [True, False])
def test_a_batch_without_images(training):
    """A detector that proposes nothing gives the shared head such a batch."""
    assert not can_fuse(True, torch.empty(0, 4, 5, 5), [nn.BatchNorm2d(4)])
    model = APAResNet(18).train(training)
    x = torch.empty(0, 3, 32, 32, requires_grad=True)
    out = model(x)[-1]
    out.sum().backward()
    assert out.shape == (0, 512, 1, 1) and x.grad.shape == x.shape


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('training', [True, False])
def test_a_model_in_half_precision(dtype, training):
    norm, act = norm_layer(4, training, torch.float32), AGLU()
    x = torch.randn(8, 4, 5, 5)
    grads = []
    for kind in (torch.float32, dtype):
        modules = nn.ModuleList(copy.deepcopy([norm, act])).to(kind)
        leaf = x.to(kind).requires_grad_()
        out = fused_block_end(modules[0], None, modules[1],
                              fused_norm_act(*modules, leaf), leaf)
        leaves = [leaf, *modules.parameters()]
        grads.append(torch.autograd.grad(out.square().sum(), leaves))
    for want, got in zip(*grads, strict=True):
        assert got.dtype == dtype
        scale = want.abs().max()
        torch.testing.assert_close(
            got.float() / scale, want / scale, rtol=0, atol=0.05)


def test_half_precision_does_not_blur_what_attention_sees():
    """The means of the maps lie close together, far from zero."""
    x = (torch.randn(4, 8, 9, 9) + 4).bfloat16()
    norm, attention = nn.BatchNorm2d(8), ChannelAttention(8, reduction=1)
    seen = []
    attention.norm.register_forward_pre_hook(
        lambda module, args: seen.append(args[0]))
    with torch.autocast('cpu', torch.bfloat16):
        fused_block_end(norm, attention, AGLU(), x, x)
    want = norm(x.float()).mean((2, 3))
    torch.testing.assert_close(seen[0].float(), want, rtol=8e-3, atol=1e-5)


def test_only_the_cpu_is_asked_for_float64():
    """Apple's and some of Intel's devices do not have it."""
    x, vector = torch.empty(2, 4, 5, 5), torch.ones(4)
    for device, want in (('cpu', torch.float64), ('meta', torch.float32)):
        x, vector = x.to(device), vector.to(device).requires_grad_()
        main = fused.batch_norm(x, *[vector] * 4, None, batch_stats=True)
        assert main.sums.dtype == want
        numbers = fused._sums(x, vector.expand(2, 4), main.affine)
        assert numbers.dtype == torch.float32


def test_what_is_not_joined():
    x = torch.rand(2, 16, 4, 4)
    norm, act, attention = nn.BatchNorm2d(16), AGLU(), ChannelAttention(16)
    assert can_fuse(True, x, (norm, attention, act, None))
    assert not can_fuse(False, x, (norm, act))
    assert not can_fuse(True, x, (nn.SyncBatchNorm(16), act))
    assert not can_fuse(True, x, (nn.BatchNorm2d(16, affine=False), act))
    assert not can_fuse(True, x, (norm, nn.ReLU()))
    assert not can_fuse(True, x, (norm, AGLU(4, channel_dim=-1)))
    handle = act.register_forward_hook(lambda *a: None)
    assert not can_fuse(True, x, (norm, act))
    handle.remove()
    assert can_fuse(True, x, (norm, act))


@pytest.mark.parametrize('kind', ['each', 'global'])
@pytest.mark.parametrize('train', [True, False])
def test_every_hook_runs(kind, train):
    """Modules that kernels stand in for are called while a hook looks."""
    model = APAResNet(50, fuse=True).train(train)
    called = {}

    def note(module, *_):
        called[module] = called.get(module, 0) + 1

    if kind == 'global':
        handles = [nn.modules.module.register_module_forward_hook(note)]
    else:
        handles = [m.register_forward_hook(note) for m in model.modules()]
    x = torch.rand(2, 3, 32, 32)
    model(x)
    for handle in handles:
        handle.remove()
    assert {m: 1 for m in model.modules()} == called
    called.clear()
    model(x)
    assert not called


@pytest.mark.parametrize('folded', [False, True])
def test_inference_agrees_folded_or_not(folded, monkeypatch):
    """Also after mmcv's fuse_conv_bn, which leaves Identity for a norm."""
    model = APAResNet(18, fuse=True).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        separate = APAResNet(18, fuse=False).eval()
        separate.load_state_dict(model.state_dict())
        want = separate(x)
        if folded:
            fuse_conv_bn(model)
        monkeypatch.setattr(AGLU, 'forward', None)  # is not called
        got = model(x)
    for a, b in zip(got, want, strict=True):
        scale = b.abs().max()
        torch.testing.assert_close(a / scale, b / scale, rtol=1e-5, atol=1e-5)


def test_a_folded_network_trains_with_separate_layers():
    model = fuse_conv_bn(APAResNet(18, fuse=True).eval()).train()
    x = torch.rand(2, 3, 32, 32)
    model(x)[-1].sum().backward()
    assert model.layer1[0].act1.kappa.grad.abs() > 0
    with torch.no_grad():  # Identity in training mode has no statistics
        assert model(x)[-1].isfinite().all()


def test_a_norm_may_be_folded_without_that_of_the_shortcut():
    norm, act = norm_layer(4, True, torch.float32), AGLU()
    attention = ChannelAttention(4, reduction=2, dropout=0.)
    x = torch.rand(2, 4, 3, 3)
    with torch.no_grad():
        got = fused_block_end(nn.Identity(), attention, act, x, x, norm)
        torch.testing.assert_close(got, act(attention(x) + norm(x)))


@needs_compiler
def test_inference_takes_the_memory_of_the_convolution():
    norm, act = nn.BatchNorm2d(4).eval(), AGLU()
    x = torch.randn(2, 4, 5, 5)
    with torch.no_grad():
        for run in (fused_norm_act,
                    lambda norm, act, x, inplace: fused_block_end(
                        norm, None, act, x, torch.ones_like(x),
                        inplace=inplace)):
            before = x.clone()
            kept = run(norm, act, x, inplace=False)
            assert torch.equal(x, before)
            out = run(norm, act, x, inplace=True)
            assert out.data_ptr() == x.data_ptr() and torch.equal(out, kept)


class Watch(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def test_modules_whose_forward_is_replaced_are_called():
    """As mmengine's activation checkpointing and accelerate do."""
    conv, act, x = nn.Conv2d(3, 3, 1), AGLU(), torch.rand(1, 3, 2, 2)
    with torch.no_grad():
        assert may_overwrite(conv) and can_fuse(True, x, [act])
        for module in (conv, act):
            module.forward = module.forward
        assert not may_overwrite(conv) and not can_fuse(True, x, [act])


def test_what_others_may_read_is_not_overwritten():
    conv = nn.Conv2d(3, 3, 1)
    assert not may_overwrite(conv)  # the backward pass reads it
    model, seen = APAResNet(50, fuse=True).eval(), {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda m, args, out, name=name: seen.update(
                    {name: (out, out.clone(), args[0], args[0].clone())}))
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert may_overwrite(conv)
        with Watch():
            assert not may_overwrite(conv)
        assert not may_overwrite(nn.Identity())  # its output is its input
        model(x)
    assert len(seen) == 53
    for tensor, copy_, given, given_copy in seen.values():
        assert torch.equal(tensor, copy_) and torch.equal(given, given_copy)


def test_a_hook_on_the_projection_runs():
    model = APAResNet(18, fuse=True)
    called = []
    model.layer2[0].downsample.register_forward_hook(
        lambda *_: called.append(1))
    model(torch.rand(2, 3, 32, 32))
    assert called == [1]


def test_a_block_asks_once(monkeypatch):
    asked = []

    def count(*args):
        asked.append(can_fuse(*args))
        return asked[-1]

    for module in ('resnet', 'resnet_blocks'):
        monkeypatch.setattr(f'apa_mm.backbones.{module}.can_fuse', count)
    APAResNet(18, fuse=True)(torch.rand(2, 3, 32, 32))
    assert asked == [True] * 9  # the stem and 8 blocks


@needs_compiler
def test_default_is_the_compiled_form_on_the_cpu():
    norm, act = nn.BatchNorm2d(4), AGLU()
    x = torch.rand(2, 4, 4, 4)
    assert can_fuse(None, x, (norm, act))
    assert not can_fuse(None, x.double(), (norm, act))
    assert not can_fuse(None, x.to(memory_format=torch.channels_last),
                        (norm, act))


@needs_compiler
@pytest.mark.parametrize('shape', [(3, 5, 70, 71), (2, 3, 1, 1), (1, 4, 5, 5)])
def test_batch_statistics(shape):
    x = torch.randn(shape) * 3 + 40
    running_mean, running_var = torch.zeros(shape[1]), torch.ones(shape[1])
    mean, invstd, away = native_fused.batch_statistics(
        x, running_mean, running_var, 1e-3, 0.25)
    want, dims = x.double(), (0, 2, 3)
    torch.testing.assert_close(mean.double(), want.mean(dims))
    torch.testing.assert_close(
        away.double(), want.mean((2, 3)) - want.mean(dims), rtol=1e-4,
        atol=1e-5)
    biased = want.var(dims, correction=0)
    torch.testing.assert_close(
        invstd.double(), (biased + 1e-3).rsqrt(), rtol=1e-5, atol=0)
    torch.testing.assert_close(running_mean.double(), want.mean(dims) / 4)
    torch.testing.assert_close(
        running_var.double(), 0.75 + want.var(dims) / 4, rtol=1e-5, atol=0)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_one_value_per_channel_is_refused_as_by_torch(dtype):
    norm, act = nn.BatchNorm2d(4).to(dtype), AGLU().to(dtype)
    x = torch.rand(1, 4, 1, 1, dtype=dtype)
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        norm(x)
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        fused_norm_act(norm, act, x)


@pytest.mark.parametrize('momentum', [0.1, None])
def test_running_statistics_follow_torch(momentum):
    ours, theirs = (nn.BatchNorm2d(4, momentum=momentum) for _ in range(2))
    act = AGLU()
    for _ in range(3):
        x = torch.randn(2, 4, 5, 5) + 2
        fused_norm_act(ours, act, x)
        theirs(x)
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer)


@pytest.mark.parametrize('native', [True, False])
@pytest.mark.parametrize('end', [True, False])
@pytest.mark.parametrize(
    'form', [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize('far', [1e3, 1e4, 1e5])
def test_values_far_from_zero_are_as_exact_as_by_torch(
        monkeypatch, native, end, form, far):
    """In training, against float64; |mean| / std is ``far``."""
    if not native:
        for module in ('kernels', 'layers'):
            monkeypatch.setattr(f'apa_mm.{module}.fused.usable',
                                lambda *_, **__: False)
    torch.manual_seed(0)
    pair = nn.ModuleList(
        [norm_layer(32, True, torch.float32), AGLU(num_parameters=32)])
    x = torch.randn(8, 32, 8, 8) + far * torch.randn(32, 1, 1).sign()
    x, short, grad = (t.to(memory_format=form)
                      for t in (x, torch.randn_like(x), torch.randn_like(x)))

    def run(joined, dtype):
        norm, act = copy.deepcopy(pair).to(dtype)
        leaf = x.to(dtype, copy=True).requires_grad_()
        other = short.to(dtype)
        if joined:
            out = fused_block_end(
                norm, None, act, leaf, other) if end else fused_norm_act(
                    norm, act, leaf)
        else:
            out = act(norm(leaf) + other) if end else act(norm(leaf))
        out.backward(grad.to(dtype))
        return [out, leaf.grad, norm.running_mean, norm.running_var,
                *(p.grad for p in (*norm.parameters(), *act.parameters()))]

    ours, theirs, exact = (run(*kind) for kind in (
        (True, torch.float32), (False, torch.float32),
        (False, torch.float64)))
    for a, b, true in zip(ours, theirs, exact, strict=True):
        error, torchs = ((v.double() - true).norm() / true.norm()
                         for v in (a, b))
        assert error < 3 * torchs + 1e-6
