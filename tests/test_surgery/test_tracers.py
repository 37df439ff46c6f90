"""Networks with swapped activations under the tracers of PyTorch."""
import copy
import gc
import io

import pytest
import torch
from torch import nn
from torch.ao.quantization import (disable_fake_quant, disable_observer,
                                   enable_fake_quant, enable_observer,
                                   get_default_qat_qconfig_mapping,
                                   get_default_qconfig_mapping)
from torch.ao.quantization.quantize_fx import prepare_fx, prepare_qat_fx

from apa_mm.backbones import APAResNet
from apa_mm.surgery import replace_activations

from test_surgery.test_replace import (VALUES, Bare, Handed, SharedBlock, Two,
                                       set_units, units)

feature_extraction = pytest.importorskip(
    'torchvision.models.feature_extraction', reason='needs torchvision')


class Nested(SharedBlock):
    """Calls layers of layers, and may leave out its last use."""

    def __init__(self, last=True):
        super().__init__()
        self.fc2 = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.fc3 = nn.Linear(4, 4)
        self.last = last

    def forward(self, x):
        x = self.relu(x - 0.5)
        x = self.relu(self.fc2(self.fc1(x)))
        x = self.fc3(x)
        if self.last:
            x = self.relu(x)
        return x


class Mixed(Two):
    """Has a layer before the second call of one and the first of another."""

    def forward(self, x):
        x = self.relu(self.fc1(x))
        return self.act(self.act(self.relu(self.fc2(x))) - 0.5)


class Twice(nn.Module):
    """Calls one block twice, once by keyword."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        return self.block(x=self.block(x) + 0.25) - 0.5


def swapped(block):
    torch.manual_seed(0)
    block = block.double()
    replace_activations(block, init='random')
    values = VALUES + [(0.5, 1.0), (1.75, 0.25)]
    set_units(block, values[:len(units(block))])
    return block.eval()


BLOCKS = [SharedBlock, Handed, Bare, Two, Mixed, Nested,
          lambda: Nested(last=False)]


@pytest.mark.parametrize('outside', [nn.Identity, Twice, nn.Sequential])
@pytest.mark.parametrize('block', BLOCKS)
def test_a_traced_block_is_like_the_block(block, outside):
    inner = swapped(block())
    model = inner if outside is nn.Identity else outside(inner)
    x = torch.randn(5, 4, dtype=torch.float64)
    for _ in range(2):  # a trace leaves nothing for the next one
        traced = torch.fx.symbolic_trace(model)
        torch.testing.assert_close(traced(x), model(x), rtol=1e-12, atol=0)
    names = {name for name in traced.state_dict() if 'kappa' in name}
    assert names <= set(model.state_dict())
    assert len(names) == len(units(model)) - (not getattr(inner, 'last', 1))


def saved(model):
    gc.collect()  # what only the original holds is gone
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def extractor(model):
    return feature_extraction.create_feature_extractor(
        model, {'fc': 'out', 'layer3': 'mid'})


def prepared(model):
    x = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    return prepare_fx(model, get_default_qconfig_mapping(), (x, ))


trace = torch.fx.symbolic_trace
ROUTES = {
    'fx': [trace],
    'create_feature_extractor': [extractor],
    'prepare_fx': [prepared],
    'save': [saved],
    'deepcopy': [copy.deepcopy],
    'save, then fx': [saved, trace],
    'fx, then save': [trace, saved],
    'fx, then deepcopy': [trace, copy.deepcopy],
}


@pytest.mark.parametrize('route', ROUTES)
def test_a_resnet(route):
    from torchvision.models.resnet import Bottleneck, ResNet
    torch.manual_seed(0)
    model = ResNet(Bottleneck, [2, 1, 1, 1], num_classes=3).eval().double()
    assert replace_activations(model, init='random').num_units == 16
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = model(x)
    found = copy.deepcopy(model)
    for step in ROUTES[route]:
        found = step(found)
    out = found.eval()(x)
    out = out['out'] if isinstance(out, dict) else out
    torch.testing.assert_close(out, expected, rtol=1e-8, atol=0)
    for result in (expected, out):
        result.square().sum().backward()
    grads = dict(found.named_parameters())
    for name, parameter in model.named_parameters():
        if name.endswith(('kappa', 'lambd')):
            torch.testing.assert_close(
                grads[name].grad, parameter.grad, rtol=1e-6, atol=1e-12)
    # Checkpoints of the one are checkpoints of the other.
    if route != 'prepare_fx':
        found.load_state_dict(model.state_dict())


def test_units_traced_without_their_block_say_so():
    block = swapped(SharedBlock())
    with pytest.raises(RuntimeError, match='cannot tell which of 3 units'):
        trace(nn.Sequential(block.relu))


@pytest.mark.parametrize('unit, units_in', [('apa_mm.AGLU', 17), ('ReLU', 25)])
def test_our_network_is_traced_as_its_parents_are(unit, units_in):
    """With ReLU its units are put in first; those of the stem included."""
    model = APAResNet(18, act_cfg=dict(type=unit), base_channels=16)
    if unit == 'ReLU':  # 17 sites, and one in each attention
        replace_activations(model, init='random')
    assert len(units(model)) == units_in
    model = model.double().eval()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    want = model(x)
    quantised = prepare_fx(
        copy.deepcopy(model), get_default_qconfig_mapping(), (x, ))
    traced = trace(model)
    for found in (traced, quantised):
        for a, b in zip(found(x), want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)
    assert set(traced.state_dict()) == set(model.state_dict())
    found = feature_extraction.create_feature_extractor(
        model, {'layer2': 'low', 'layer4': 'high'})(x)
    for name, i in (('low', 1), ('high', 3)):
        torch.testing.assert_close(
            found[name], want[i], rtol=1e-8, atol=1e-12)


def test_our_network_is_trained_as_if_quantised():
    """Quantisers stand beside the units, which compute and learn on."""
    # float32 is the only type of torch's quantisers.
    gate = dict(type='apa_mm.ChannelAttention', reduction=4, dropout=0.)
    model = APAResNet(18, base_channels=8, attention_cfg=gate, num_stages=2,
                      out_indices=(1, )).train()
    x = torch.randn(8, 3, 32, 32)
    net = prepare_qat_fx(copy.deepcopy(model),
                         get_default_qat_qconfig_mapping(), (x, ))
    state = {name: value for name, value in net.named_parameters()
             if name.endswith(('kappa', 'lambd'))}
    assert set(state) == {name for name, _ in model.named_parameters()
                          if name.endswith(('kappa', 'lambd'))}
    assert len(state) == 2 * (9 + 4)  # units and gates
    net.apply(disable_fake_quant), net.apply(disable_observer)
    want = model(x)[0]
    torch.testing.assert_close(net(x)[0], want, rtol=1e-3, atol=1e-3)
    net.apply(enable_fake_quant), net.apply(enable_observer)
    before = {name: value.detach().clone() for name, value in state.items()}
    out = net(x)[0]
    assert 1e-3 < (out - want).norm() / want.norm() < 0.2
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    out.square().mean().backward()
    optimizer.step()
    for name, value in state.items():
        assert value.grad.isfinite().all() and (value != before[name]).all()
    assert net(x)[0].square().mean() < out.square().mean()
