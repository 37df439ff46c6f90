"""Tests of the wrapped Cauchy classifier."""
import math

import pytest
import torch

from apa_mm.layers import WrappedCauchyLinear

#: u -> logit of the released form at g = 1, b = 0, s = 300.
RELEASED = {-1.: 7.4218, 0.: 14.4937, .5: 27.6825, .9: 101.765, 1.: 307.479}


def layer_with_cosine(u, **kwargs):
    layer = WrappedCauchyLinear(2, 1, eps=0., **kwargs).double()
    layer.weight.data = torch.tensor([[u, math.sqrt(1 - u * u)]]).double()
    return layer


@pytest.mark.parametrize('u, want', RELEASED.items())
def test_released_values(u, want):
    x = torch.tensor([[3., 0.]]).double()
    layer = layer_with_cosine(u, form='released')
    assert layer(x).item() == pytest.approx(want, rel=2e-5)
    exact = layer_with_cosine(u)
    assert exact(x).item() == pytest.approx(want * 3.14 / math.pi, rel=2e-5)


def test_the_bias_shifts_the_logit_or_the_cosine():
    x = torch.tensor([[3., 0.]]).double()
    exact, released = (layer_with_cosine(.5, form=f)
                       for f in ('exact', 'released'))
    before = exact(x).item()
    exact.bias.data.fill_(2.)
    assert exact(x).item() == pytest.approx(before + 2)
    released.bias.data.fill_(-.5)  # cosine 0.5 - 0.5 = 0
    assert released(x).item() == pytest.approx(RELEASED[0.], rel=2e-5)


def test_the_pole_is_out_of_reach_in_the_exact_form():
    x = torch.tensor([[3., 0.]]).double()
    exact, released = (layer_with_cosine(1., form=f)
                       for f in ('exact', 'released'))
    for layer in (exact, released):
        layer.bias.data.fill_(.06)
    assert exact(x).item() > 0 > released(x).item()


def test_state_and_learnable_scale():
    fixed = WrappedCauchyLinear(8, 5)
    assert list(fixed.state_dict()) == ['weight', 'bias', 'g']
    learnt = WrappedCauchyLinear(8, 5, scale=None, bias=False)
    assert set(learnt.state_dict()) == {'weight', 'g', 'scale'}
    assert learnt.scale.item() == 50
    learnt(torch.rand(3, 8)).square().sum().backward()
    assert all((p.grad != 0).any() for p in learnt.parameters())


def test_zero_input_is_finite():
    layer = WrappedCauchyLinear(8, 5)
    x = torch.zeros(2, 8, requires_grad=True)
    out = layer(x)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


def test_gradcheck():
    layer = WrappedCauchyLinear(4, 3, scale=None).double()
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(layer, x)


def test_autocast_computes_in_float32():
    layer = WrappedCauchyLinear(64, 5)
    x = torch.randn(16, 64)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        mixed = layer(x.bfloat16())
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, layer(x.bfloat16().float()))


def test_mmdets_head_takes_it():
    from mmdet.registry import MODELS
    head = MODELS.build(
        dict(
            type='Shared2FCBBoxHead',
            in_channels=4,
            fc_out_channels=8,
            num_classes=20,
            cls_predictor_cfg=dict(type='apa_mm.WrappedCauchyLinear')))
    head.init_weights()
    assert isinstance(head.fc_cls, WrappedCauchyLinear)
    cls_score, _ = head(torch.rand(2, 4, 7, 7))
    assert cls_score.shape == (2, 21)


@pytest.mark.parametrize('kwargs, match', [
    (dict(form='paper'), "form must be one of.*'paper'"),
    (dict(scale=0.), 'scale must be positive, or None.*0.0'),
])
def test_bad_arguments(kwargs, match):
    with pytest.raises(ValueError, match=match):
        WrappedCauchyLinear(8, 5, **kwargs)
