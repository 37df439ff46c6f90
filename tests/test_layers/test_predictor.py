"""Tests of the cosine predictors and of logits for one class per sample."""
import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import build_conv_layer
from torch import nn

from apa_mm.layers.predictor import (CosineConv2d, CosineLinear,
                                     classwise_conv2d,
                                     cosine_classwise_conv2d)
from apa_mm.registry import MODELS

F64 = dict(dtype=torch.float64)


def reference(x, weight, bias, scale, power, eps):
    """Write the formula out for x (N, C) and weight (K, C), term by term."""
    logits = torch.empty(len(x), len(weight), **F64)
    for n, sample in enumerate(x.tolist()):
        for k, row in enumerate(weight.tolist()):
            dot = sum(a * b for a, b in zip(sample, row, strict=True))
            x_norm = math.sqrt(sum(a * a for a in sample))**power + eps
            w_norm = math.sqrt(sum(b * b for b in row))**power + eps
            logits[n, k] = scale * dot / x_norm / w_norm
    return logits + bias


@pytest.mark.parametrize('scale, power, eps', [(20.0, 1.0, 1e-6),
                                               (7.0, 0.5, 0.1)])
@pytest.mark.parametrize('learnable', [False, True])
def test_linear_equals_formula(scale, power, eps, learnable):
    layer = CosineLinear(
        5, 4, temperature=scale, learnable_temperature=learnable, power=power,
        eps=eps, **F64)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x = torch.randn(3, 5, **F64)
    expected = reference(x, layer.weight, layer.bias, scale, power, eps)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_conv_is_the_linear_layer_at_each_place():
    linear, conv = CosineLinear(5, 4, **F64), CosineConv2d(5, 4, 1, **F64)
    nn.init.normal_(linear.weight)
    nn.init.normal_(linear.bias)
    conv.weight.data = linear.weight.data[:, :, None, None]
    conv.bias.data = linear.bias.data
    x = torch.randn(2, 5, 3, 4, **F64)
    expected = linear(x.movedim(1, -1).reshape(-1, 5))
    expected = expected.view(2, 3, 4, 4).movedim(-1, 1)
    torch.testing.assert_close(conv(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('cls, args', [(CosineLinear, (5, 4)),
                                       (CosineConv2d, (5, 4, 1))])
def test_temperature(cls, args):
    fixed = cls(*args)
    assert fixed.scale == 20.0
    assert sorted(fixed.state_dict()) == ['bias', 'weight']
    learned = cls(*args, learnable_temperature=True)
    assert learned.temperature.item() == 4.5
    assert learned.scale.item() == 20.25
    assert learned.temperature.shape == ()
    assert sorted(learned.state_dict()) == ['bias', 'temperature', 'weight']
    started = cls(*args, learnable_temperature=True, temperature=9.0)
    assert started.temperature.item() == 3.0
    assert 'scale=9, learnable_temperature=True' in repr(started)


def test_gradient_of_theta():
    layer = CosineLinear(5, 4, bias=False, learnable_temperature=True, **F64)
    x = torch.randn(3, 5, **F64)
    layer(x).sum().backward()
    cosines = layer(x).sum() / layer.scale
    # d(theta^2 * cosines) / d(theta)
    torch.testing.assert_close(layer.temperature.grad, 2 * 4.5 * cosines)


@pytest.mark.parametrize('layer, shape', [
    (CosineLinear(3, 2, learnable_temperature=True, **F64), (2, 3)),
    (CosineConv2d(3, 2, 3, padding=1, learnable_temperature=True, **F64),
     (1, 3, 3, 2))])
def test_gradcheck(layer, shape):
    x = torch.randn(shape, requires_grad=True, **F64)
    names = [n for n, _ in layer.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in layer.parameters()]

    def forward(x, *values):
        return torch.func.functional_call(
            layer, dict(zip(names, values, strict=True)), (x, ))

    assert torch.autograd.gradcheck(forward, (x, *values))


def test_linear_starts_small():
    layer = CosineLinear(400, 100)
    assert layer.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not layer.bias.any()


@pytest.mark.parametrize('layer, x', [
    (CosineLinear(4, 3), torch.zeros(2, 4)),
    (CosineConv2d(4, 3, 1), torch.zeros(2, 4, 2, 2))])
def test_zero_input_is_finite(layer, x):
    x.requires_grad_()
    out = layer(x)
    out.sum().backward()
    torch.testing.assert_close(
        out.movedim(1, -1), layer.bias.expand(*out.movedim(1, -1).shape))
    assert x.grad.isfinite().all()


@pytest.mark.parametrize('dtype, tol', [(torch.float16, 2e-2),
                                        (torch.bfloat16, 0.15)])
def test_half_types_keep_their_dtype_and_norm(dtype, tol):
    # |x| = 69,282 overflows float16
    x = torch.full((2, 4, 2, 2), 4e4)
    x[:, 0] = 1
    layer = CosineConv2d(4, 3, 1, learnable_temperature=True)
    labels = torch.tensor([0, 2])
    expected = layer(x)
    layer, x = layer.to(dtype), x.to(dtype)
    assert layer(x).dtype == dtype
    torch.testing.assert_close(
        layer(x).float(), expected, rtol=tol, atol=20 * tol)
    one = layer.forward_classwise(x, labels)
    assert one.dtype == dtype
    torch.testing.assert_close(
        one[:, 0].float(), expected[range(2), labels], rtol=tol,
        atol=20 * tol)


def gradients(logits, weight, inputs):
    """Return the gradients of a weighted sum of the logits."""
    return torch.autograd.grad((logits * weight).sum(), inputs)


@pytest.mark.parametrize('kind', ['plain', 'no_bias', 'fixed', 'learned'])
@pytest.mark.parametrize('channels_last', [False, True])
def test_classwise_equals_all_channels(kind, channels_last):
    if kind in ('plain', 'no_bias'):
        conv = nn.Conv2d(6, 11, 1, bias=kind == 'plain', **F64)

        def classwise(x, labels):
            return classwise_conv2d(x, conv.weight, conv.bias, labels)
    else:
        conv = CosineConv2d(
            6, 11, 1, learnable_temperature=kind == 'learned', power=0.8,
            eps=0.01, **F64)
        classwise = conv.forward_classwise
    x = torch.randn(5, 6, 4, 3, requires_grad=True, **F64)
    feed = x.contiguous(memory_format=torch.channels_last) \
        if channels_last else x
    labels = torch.tensor([0, 3, 3, 10, 7])
    expected = conv(feed)[range(5), labels][:, None]
    found = classwise(feed, labels)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weight = torch.randn_like(expected)
    inputs = [x, *conv.parameters()]
    for a, b in zip(
            gradients(found, weight, inputs),
            gradients(expected, weight, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_classwise_by_hand():
    x = torch.tensor([[3.0, 4.0]])[:, :, None, None]  # unit: 0.6, 0.8
    weight = torch.tensor([[1.0, 0.0], [0.0, 2.0]])[:, :, None, None]
    found = cosine_classwise_conv2d(
        x, weight, torch.tensor([0.0, 1.0]), torch.tensor([1]), scale=10.0,
        power=1.0, eps=0.0)
    torch.testing.assert_close(found.flatten(), torch.tensor([9.0]))


def test_classwise_without_samples():
    layer = CosineConv2d(4, 3, 1, learnable_temperature=True)
    out = layer.forward_classwise(
        torch.rand(0, 4, 2, 2), torch.zeros(0, dtype=torch.long))
    assert out.shape == (0, 1, 2, 2)
    out.sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


def test_classwise_saves_one_channel():
    layer = CosineConv2d(8, 500, 1)
    x = torch.rand(10, 8, 7, 7, requires_grad=True)
    sizes = []

    def pack(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        layer.forward_classwise(x, torch.arange(10))
    # nothing larger than the input (10 * 8 * 49); all logits have 245,000
    assert max(sizes) <= x.numel()


def test_built_by_mmcv_and_registry():
    conv = build_conv_layer(
        dict(type='apa_mm.CosineConv2d', temperature=9.0), 4, 6, 1)
    assert type(conv) is CosineConv2d and conv.scale == 9.0
    linear = MODELS.build(
        dict(type='apa_mm.CosineLinear', in_features=3, out_features=2))
    assert type(linear) is CosineLinear


def test_kernel_larger_than_one():
    layer = CosineConv2d(3, 2, 3, padding=1, temperature=5.0, **F64)
    x = torch.randn(1, 3, 4, 4, **F64)
    expected = F.conv2d(
        5 * x / (x.norm(dim=1, keepdim=True) + 1e-6),
        layer.weight / (layer.weight.norm(dim=1, keepdim=True) + 1e-6),
        layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match='plain 1 x 1 convolution'):
        layer.forward_classwise(x, torch.tensor([0]))


@pytest.mark.parametrize('kwargs', [
    dict(temperature=0.0), dict(temperature=-1.0), dict(eps=-1e-6),
    dict(temperature=float('nan'))])
def test_mistakes(kwargs):
    with pytest.raises(ValueError, match='temperature must be positive'):
        CosineLinear(3, 2, **kwargs)


def test_equals_mmdets_layers():
    layers = pytest.importorskip('mmdet.models.layers')
    # mmdet's own spelling, which the OneDL fork corrected.
    names = inspect.signature(layers.NormedConv2d).parameters
    given = {next(n for n in names if n.startswith('temp')): 13.0}
    theirs = layers.NormedConv2d(6, 5, 1, power=0.7, **given)
    ours = CosineConv2d(6, 5, 1, temperature=13.0, power=0.7)
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(2, 6, 3, 3)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    linear = layers.NormedLinear(6, 5, **given)
    ours = CosineLinear(6, 5, temperature=13.0)
    ours.load_state_dict(linear.state_dict())
    torch.testing.assert_close(
        ours(x[:, :, 0, 0]), linear(x[:, :, 0, 0]), rtol=1e-5, atol=1e-5)
