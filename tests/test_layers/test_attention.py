"""Tests of channel attention against its formula."""
import pytest
import torch
import torch.nn.functional as F

from apa_mm.layers import APA, ChannelAttention

SIGMOID = dict(type='Sigmoid')


def manual(x, layer, gate, norm):
    pooled = x.flatten(2).sum(-1) / (x.shape[2] * x.shape[3])
    if norm:
        pooled = F.layer_norm(pooled, pooled.shape[1:], layer.norm.weight,
                              layer.norm.bias, 1e-5)
    hidden = torch.relu(pooled @ layer.fc1.weight.T)
    return x * gate(hidden @ layer.fc2.weight.T)[..., None, None]


@pytest.fixture
def x():
    return torch.randn(3, 32, 5, 4)


def test_se_baseline_is_sigmoid_squeeze_and_excitation(x):
    layer = ChannelAttention(32, gate_cfg=SIGMOID, norm_cfg=None, dropout=0.)
    assert layer.norm is None and layer.dropout is None
    assert sum(p.numel() for p in layer.parameters()) == 2 * 32 * 2
    torch.testing.assert_close(
        layer(x), manual(x, layer, torch.sigmoid, norm=False))


def test_default_is_apa_star(x):
    layer = ChannelAttention(32).eval()
    # LayerNorm's 64 and the gate's two on top of the two linear maps.
    assert sum(p.numel() for p in layer.parameters()) == 2 * 32 * 2 + 64 + 2
    torch.nn.init.normal_(layer.norm.weight)
    kappa, lambd = layer.gate.kappa, layer.gate.lambd

    def gate(e):
        return (lambd * torch.exp(-kappa * e) + 1)**(-1 / lambd)

    torch.testing.assert_close(layer(x), manual(x, layer, gate, norm=True))


def test_dropout_acts_before_the_gate(x):
    layer = ChannelAttention(32, gate_cfg=SIGMOID, norm_cfg=None, dropout=0.5)
    gates = (layer(x) / x)[:, :, 0, 0]
    dropped = (gates - 0.5).abs() < 1e-5  # sigmoid(0), not 0
    assert 0.2 < dropped.float().mean() < 0.8
    kept = gates[~dropped]
    want = manual(x, layer, lambda e: torch.sigmoid(2 * e), False) / x
    torch.testing.assert_close(kept, want[:, :, 0, 0][~dropped])


@pytest.mark.parametrize('kwargs, changes', [
    (dict(norm_cfg=None), {'norm.weight', 'norm.bias'}),
    (dict(gate_cfg=SIGMOID), {'gate.kappa', 'gate.lambd'}),
    (dict(dropout=0.), set()),
])
def test_switches_act_one_by_one(kwargs, changes):
    star = set(ChannelAttention(32).state_dict())
    other = ChannelAttention(32, **kwargs)
    assert star - set(other.state_dict()) == changes
    assert (other.dropout is None) == ('dropout' in kwargs)


def test_arguments_take_effect():
    layer = ChannelAttention(
        32,
        reduction=4,
        bias=True,
        act_cfg=dict(type='apa_mm.AGLU'),
        gate_cfg=dict(type='apa_mm.APA', num_parameters='channels'))
    assert layer.fc1.weight.shape == (8, 32)
    assert layer.fc1.bias is not None and layer.fc2.bias.shape == (32, )
    assert isinstance(layer.gate, APA) and layer.gate.num_parameters == 32
    assert {'act.kappa', 'act.lambd'} <= set(layer.state_dict())
    layer(torch.rand(2, 32, 1, 1)).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


@pytest.mark.parametrize('kwargs, match', [
    (dict(in_channels=30), 'in_channels=30 and reduction=16; choose'),
    (dict(in_channels=32, dropout=1.), r'dropout must be in \[0, 1\)'),
])
def test_bad_arguments(kwargs, match):
    with pytest.raises(ValueError, match=match):
        ChannelAttention(**kwargs)


def test_unknown_gate_is_named():
    with pytest.raises(KeyError, match='NoSuchGate is not in'):
        ChannelAttention(32, gate_cfg=dict(type='NoSuchGate'))
