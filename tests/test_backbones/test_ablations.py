"""The paper's switches: every unit and every gate in both ResNets."""
import pytest
import torch
from torch import nn

from apa_mm import layers
from apa_mm.backbones import APAResNet, APAResNetCIFAR

UNITS = [('ReLU', nn.ReLU), ('PReLU', nn.PReLU), ('ELU', nn.ELU),
         ('apa_mm.Mish', nn.Mish), ('GELU', nn.GELU), ('SiLU', nn.SiLU),
         ('apa_mm.AGLU', layers.AGLU)]
GATES = [('Sigmoid', nn.Sigmoid),
         ('apa_mm.TemperedSigmoid', layers.TemperedSigmoid),
         ('apa_mm.Gumbel', layers.Gumbel),
         ('apa_mm.TemperedGumbel', layers.TemperedGumbel),
         ('apa_mm.APA', layers.APA)]
ATTENTIONS = ['ChannelAttention', 'SpatialAttention', 'CBAM']
# depth 50: one unit in the stem and three in each of 16 blocks.
NETS = [(APAResNet, 50, 49, 16), (APAResNet, 18, 17, 8),
        (APAResNetCIFAR, 20, 19, 9)]


def count(model, kind):
    return sum(type(m) is kind for m in model.modules())


def train_step(model, size=64):
    out = model.train()(torch.rand(2, 3, size, size))[-1]
    out.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize('cls, depth, units, _', NETS)
@pytest.mark.parametrize('name, kind', UNITS)
def test_units(cls, depth, units, _, name, kind):
    model = cls(depth, act_cfg=dict(type=name), attention_cfg=None)
    assert count(model, kind) == units
    if depth != 50:
        train_step(model)


@pytest.mark.parametrize('name, kind', UNITS[:-1])
def test_units_are_torchs_own(name, kind):
    model = APAResNetCIFAR(20, act_cfg=dict(type=name), attention_cfg=None)
    x = torch.randn(2, 16, 4, 4)
    block = model.layer1[0].eval()
    out = block.bn2(block.conv2(kind()(block.bn1(block.conv1(x)))))
    torch.testing.assert_close(block(x), kind()(out + x))


@pytest.mark.parametrize('cls, depth, _, blocks', NETS)
@pytest.mark.parametrize('attention', ATTENTIONS)
@pytest.mark.parametrize('name, kind', GATES)
def test_gates(cls, depth, _, blocks, attention, name, kind):
    cfg = dict(type=f'apa_mm.{attention}', gate_cfg=dict(type=name))
    model = cls(depth, attention_cfg=cfg)
    per_block = 2 if attention == 'CBAM' else 1
    assert count(model, kind) == blocks * per_block
    if depth == 20:
        train_step(model, 32)


def test_sizes_of_the_rows_of_table_4a():
    # The gates of 16 blocks add 0, 1, 0, 1 and 2 numbers each to SE-R50.
    sizes = []
    for name, _ in GATES:
        cfg = dict(
            type='apa_mm.ChannelAttention',
            gate_cfg=dict(type=name),
            norm_cfg=None,
            dropout=0.)
        model = APAResNet(50, act_cfg=dict(type='ReLU'), attention_cfg=cfg)
        sizes.append(sum(p.numel() for p in model.parameters()) + 2_049_000)
    base = 28_071_976
    assert sizes == [base, base + 16, base, base + 16, base + 32]


def test_initial_ranges():
    model = APAResNet(
        18,
        act_cfg=dict(
            type='apa_mm.AGLU', kappa_init=(-3., -2.), lambd_init=.5),
        attention_cfg=dict(
            type='apa_mm.ChannelAttention',
            gate_cfg=dict(type='apa_mm.APA', kappa_init=(4., 5.))))
    for module in model.modules():
        if isinstance(module, layers.AGLU):
            assert -3 <= module.kappa <= -2 and module.lambd == .5
        if isinstance(module, layers.APA):
            assert 4 <= module.kappa <= 5


def test_per_channel_kappa_and_lambda_everywhere():
    per_channel = dict(num_parameters='channels')
    model = APAResNetCIFAR(
        20,
        act_cfg=dict(type='apa_mm.AGLU', **per_channel),
        attention_cfg=dict(
            type='apa_mm.CBAM',
            reduction=4,
            gate_cfg=dict(type='apa_mm.APA', **per_channel)))
    block = model.layer3[0]
    assert block.act1.num_parameters == block.act2.num_parameters == 64
    assert block.attention.channel.gate.num_parameters == 64
    assert block.attention.spatial.gate.num_parameters == 1  # its one map
    train_step(model, 32)


def test_per_channel_prelu():
    model = APAResNet(
        18,
        act_cfg=dict(type='PReLU', num_parameters='channels'),
        attention_cfg=None)
    assert model.layer2[0].act1.weight.shape == (128, )
