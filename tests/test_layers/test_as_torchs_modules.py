"""What PyTorch's own tests ask of every module of torch.nn."""
import copy
import io
import pickle

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from apa_mm.backbones.resnet_blocks import BasicBlock
from apa_mm.layers import (AGLU, APA, CBAM, ChannelAttention, Gumbel,
                           SpatialAttention, TemperedGumbel, TemperedSigmoid)

SE = dict(type='apa_mm.ChannelAttention', reduction=2)
ACTIVATIONS = {
    'AGLU': AGLU,
    'AGLU per channel': lambda **k: AGLU(4, **k),
    'AGLU as printed': lambda **k: AGLU(lambda_grad='paper', **k),
    'APA': APA,
    'APA per channel': lambda **k: APA(4, **k),
    'Gumbel': Gumbel,
    'TemperedGumbel': TemperedGumbel,
    'TemperedSigmoid': TemperedSigmoid,
}
MODULES = {
    **ACTIVATIONS,
    'ChannelAttention': lambda: ChannelAttention(4, 2),
    'SpatialAttention': lambda: SpatialAttention(4, 3),
    'CBAM': lambda: CBAM(4, 2),
    'block': lambda: BasicBlock(4, 4, attention_cfg=SE),
    'separate block': lambda: BasicBlock(4, 4, attention_cfg=SE, fuse=False),
}
SHAPE = (2, 4, 3, 5)
modules = pytest.mark.parametrize('name', list(MODULES))
smooth = pytest.mark.parametrize(
    'name', [n for n in MODULES if n not in ('AGLU as printed', 'block')])


def noncontiguous_like(x):
    return x.repeat_interleave(2, -1)[..., ::2]


def results(module, x, grad=None):
    """Return output and all gradients, those of the input first."""
    x = x.detach().requires_grad_()
    out = module(x)
    leaves = [x, *module.parameters()]
    return out, torch.autograd.grad(
        out, leaves, torch.ones_like(out) if grad is None else grad)


def assert_same(got, want, **kwargs):
    torch.testing.assert_close(got[0], want[0], **kwargs)
    for a, b in zip(got[1], want[1], strict=True):
        torch.testing.assert_close(a, b, **kwargs)


@modules
def test_copies_are_whole_and_the_input_stays(name):
    module, x = MODULES[name]().eval(), torch.randn(SHAPE)
    for parameter in module.parameters():
        torch.nn.init.uniform_(parameter, .5, 1.5)
    before = x.clone()
    want = results(module, x)
    assert torch.equal(x, before)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    loaded = MODULES[name]().eval()
    loaded.load_state_dict(torch.load(file, weights_only=True))
    emptied = copy.deepcopy(module).to('meta')
    assert emptied(x.to('meta')).shape == x.shape
    emptied = emptied.to_empty(device='cpu')
    emptied.load_state_dict(module.state_dict())
    for other in (copy.deepcopy(module), loaded, emptied,
                  pickle.loads(pickle.dumps(module)),
                  copy.deepcopy(module).double().float()):
        assert repr(other) == repr(module)
        assert_same(results(other, x), want)


@modules
def test_layouts_of_input_and_gradient(name):
    module, x = MODULES[name]().eval(), torch.randn(SHAPE)
    grad = torch.randn(SHAPE)
    want = results(module, x, grad)
    last = torch.channels_last
    for input_ in (x, noncontiguous_like(x), x.to(memory_format=last)):
        for incoming in (grad, noncontiguous_like(grad),
                         grad.to(memory_format=last)):
            assert_same(results(module, input_, incoming), want, rtol=1e-4,
                        atol=1e-5)
    moved = copy.deepcopy(module).to(memory_format=last)
    out = moved(x.to(memory_format=last))
    assert out.is_contiguous(memory_format=last)
    torch.testing.assert_close(out, want[0], rtol=1e-4, atol=1e-5)


@smooth
def test_both_derivatives_of_inputs_and_parameters(name):
    torch.manual_seed(2)
    module = MODULES[name]().double().eval()
    values = dict(module.named_parameters())

    def function(x, *parameters):
        named = dict(zip(values, parameters, strict=True))
        return functional_call(module, named, (x, ))

    x = torch.randn(1, 4, 2, 1, dtype=torch.float64, requires_grad=True)
    leaves = (x, *(v.detach().clone().requires_grad_()
                   for v in values.values()))
    # Many columns at once: one random direction of all inputs.
    assert gradcheck(function, leaves, fast_mode=True)
    assert gradgradcheck(function, leaves, fast_mode=True)


@modules
def test_modes_and_dtypes(name):
    module, x = MODULES[name](), torch.randn(SHAPE)
    want = module.eval()(x)
    if name in ACTIVATIONS:
        assert torch.equal(module.train()(x), want)
    module.eval()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        cast = module(x)
    torch.testing.assert_close(cast.float(), want, rtol=5e-2, atol=5e-2)
    for dtype, bound in ((torch.float64, 1e-5), (torch.bfloat16, 5e-2)):
        out = copy.deepcopy(module).to(dtype)(x.to(dtype))
        assert out.dtype == dtype
        torch.testing.assert_close(out.float(), want, rtol=bound, atol=bound)


@pytest.mark.parametrize('name', list(ACTIVATIONS))
def test_factories(name):
    made = ACTIVATIONS[name](device='meta', dtype=torch.float64)
    assert all(p.is_meta for p in made.parameters())
    if name != 'Gumbel':
        made.to_empty(device='cpu').reset_parameters()
    plain = ACTIVATIONS[name]()
    for (key, a), b in zip(made.named_parameters(), plain.parameters(),
                           strict=True):
        assert a.dtype == torch.float64 and a.shape == b.shape
        low, high = torch.as_tensor(getattr(made, f'{key}_init')).expand(2)
        assert low <= a.min() and a.max() <= high
    x = torch.randn(SHAPE, dtype=torch.float64)
    assert made.to(x).to('cpu')(x).isfinite().all()
