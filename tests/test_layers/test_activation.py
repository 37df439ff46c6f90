"""Tests of the activation modules."""
import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_activation_layer
from mmcv.cnn.bricks.transformer import FFN

from apa_mm.layers import (AGLU, APA, Gumbel, TemperedGumbel, TemperedSigmoid,
                           build_site_activation)

ADAPTIVE = [APA, AGLU]
X = torch.linspace(-5, 5, 24).reshape(2, 3, 4)


def test_default_ranges_are_the_papers():
    gates = [APA() for _ in range(300)]
    units = [AGLU() for _ in range(300)]
    for modules, name, low, high in ((gates, 'kappa', -1., 0.),
                                     (units, 'kappa', 1., 1.3),
                                     (gates, 'lambd', 0., 1.),
                                     (units, 'lambd', 0., 1.)):
        values = torch.stack([getattr(m, name).detach() for m in modules])
        assert low <= values.min() and values.max() <= high
        assert values.max() - values.min() > 0.9 * (high - low)


@pytest.mark.parametrize('module, want', [
    (APA(kappa_init=1., lambd_init=1.), torch.sigmoid),
    (AGLU(kappa_init=1., lambd_init=1.), F.silu),
    (Gumbel(), lambda x: torch.exp(-torch.exp(-x))),
    (TemperedSigmoid(kappa_init=2.), lambda x: torch.sigmoid(2 * x)),
    (TemperedGumbel(kappa_init=2.), lambda x: torch.exp(-torch.exp(-2 * x))),
])
def test_values(module, want):
    torch.testing.assert_close(module(X), want(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('cls', ADAPTIVE + [TemperedSigmoid, TemperedGumbel])
def test_parameters_and_state(cls):
    module = cls(num_parameters=3)
    names = ['kappa', 'lambd'] if cls in ADAPTIVE else ['kappa']
    assert list(module.state_dict()) == names
    assert all(p.shape == (3, ) for p in module.parameters())
    module(X).sum().backward()
    assert all((p.grad != 0).all() for p in module.parameters())


@pytest.mark.parametrize('cls', ADAPTIVE)
@pytest.mark.parametrize('channel_dim', [1, -1])
def test_per_channel_equals_channel_by_channel(cls, channel_dim):
    channels = X.shape[channel_dim]
    whole = cls(num_parameters=channels, channel_dim=channel_dim)
    got = whole(X)
    for c in range(channels):
        one = cls(
            kappa_init=whole.kappa[c].item(),
            lambd_init=whole.lambd[c].item())
        torch.testing.assert_close(
            got.select(channel_dim, c), one(X.select(channel_dim, c)))


@pytest.mark.parametrize('cls', ADAPTIVE)
def test_lambda_below_the_floor_counts_as_the_floor_and_returns(cls):
    module = cls(kappa_init=1., lambd_init=-0.05)
    floor = cls(kappa_init=1., lambd_init=1e-4)
    torch.testing.assert_close(module(X), floor(X))
    optimizer = torch.optim.SGD([module.lambd], lr=0.1)
    x = torch.full((8, ), -1.0 if cls is AGLU else 1.0)
    for _ in range(50):
        optimizer.zero_grad()
        # Raising lambda moves these outputs towards the target.
        F.mse_loss(module(x), torch.full_like(x, -2.0 if cls is AGLU else
                                              2.0)).backward()
        optimizer.step()
    assert module.lambd.item() > 1e-2


def test_paper_gradient_reaches_the_module():
    grads = []
    for mode in ('exact', 'paper'):
        unit = AGLU(kappa_init=1., lambd_init=0.5, lambda_grad=mode)
        unit(torch.tensor([-1.])).backward()
        grads.append(unit.lambd.grad.item())
    assert grads == pytest.approx([-0.202805, 0.414060], rel=1e-5)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_modules_and_half_inputs(dtype):
    module = AGLU(kappa_init=1.25, lambd_init=0.5)
    want = module(X)
    for candidate in (module, module.to(dtype)):
        out = candidate(X.to(dtype))
        assert out.dtype == dtype
        torch.testing.assert_close(out.float(), want, rtol=2e-2, atol=2e-2)


def test_every_mmcv_builder_takes_the_type():
    layer = build_activation_layer(dict(type='apa_mm.AGLU'))
    assert isinstance(layer, AGLU)
    conv = ConvModule(3, 4, 1, act_cfg=dict(type='apa_mm.AGLU'))
    assert isinstance(conv.activate, AGLU)
    ffn = FFN(8, 16, act_cfg=dict(type='apa_mm.AGLU'))
    assert sum(isinstance(m, AGLU) for m in ffn.modules()) == 1


def test_site_activation_fills_in_the_channels():
    cfg = dict(type='apa_mm.AGLU', num_parameters='channels')
    first, second = (build_site_activation(cfg, c) for c in (4, 8))
    assert (first.num_parameters, second.num_parameters) == (4, 8)
    assert cfg['num_parameters'] == 'channels'
    relu = build_site_activation(dict(type='ReLU', inplace=True), 4)
    assert isinstance(relu, torch.nn.ReLU)


def test_repr_shows_the_settings():
    text = repr(AGLU(num_parameters=3, channel_dim=-1, lambda_grad='paper'))
    for part in ('num_parameters=3', 'channel_dim=-1', "'paper'", '1.3'):
        assert part in text


@pytest.mark.parametrize('kwargs, match', [
    (dict(num_parameters=0), 'num_parameters must be 1 or .* but got 0'),
    (dict(num_parameters='3'), "but got '3'"),
    (dict(kappa_init=(1., 0.)), r'kappa_init must be .* but got \(1.0, 0.0\)'),
    (dict(lambd_init=(1, 2, 3)), 'lambd_init must be a number or a pair'),
    (dict(lambd_min=0.), 'lambd_min must be positive'),
])
@pytest.mark.parametrize('cls', ADAPTIVE)
def test_bad_arguments(cls, kwargs, match):
    with pytest.raises(ValueError, match=match):
        cls(**kwargs)


def test_bad_lambda_grad():
    with pytest.raises(ValueError, match="lambda_grad must be one of.*'true'"):
        AGLU(lambda_grad='true')


def test_channel_mismatch_says_how_to_mend():
    with pytest.raises(
            ValueError,
            match='num_parameters must be 1 or the channel count 3 .* but got '
            '5; set num_parameters=3'):
        AGLU(num_parameters=5)(X)


@pytest.mark.parametrize('inplace', [False, True])
def test_timm_may_give_inplace_by_position(inplace):
    for cls in ADAPTIVE + [Gumbel, TemperedSigmoid, TemperedGumbel]:
        module = cls(inplace)
        assert getattr(module, 'num_parameters', 1) == 1
        assert 'num_parameters=True' not in repr(module)
        assert module(X).shape == X.shape


@pytest.mark.parametrize('cls', ADAPTIVE + [TemperedSigmoid, TemperedGumbel])
def test_a_single_number_keeps_its_shape(cls):
    assert cls()(torch.tensor(0.3)).shape == ()
    assert cls()(torch.tensor(0.3).double()).shape == ()
