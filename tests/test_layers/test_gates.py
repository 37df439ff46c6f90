"""Hooks on gates: which are found, and that they leave no trace."""
import pytest
import torch
from torch import nn

from apa_mm.backbones import APAResNet, APAResNetCIFAR
from apa_mm.layers import AGLU, APA, CBAM, ChannelAttention, SpatialAttention
from apa_mm.layers.gates import find_gates, record_gates
from apa_mm.utils.imports import HAS_MMPRETRAIN


def backbone(**attention):
    cfg = dict(type='apa_mm.ChannelAttention', reduction=4)
    return APAResNetCIFAR(depth=20, attention_cfg=dict(cfg, **attention))


def num_hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks)
               for m in model.modules())


def test_gates_of_a_backbone_are_found_in_their_order():
    names = list(find_gates(APAResNet(depth=18)))
    assert names == [f'layer{s}.{b}.attention.gate' for s in (1, 2, 3, 4)
                     for b in (0, 1)]


def test_sigmoid_gates_and_both_gates_of_cbam():
    assert len(find_gates(backbone(gate_cfg=dict(type='Sigmoid')))) == 9
    model = nn.Sequential(CBAM(32), SpatialAttention(), AGLU(), APA())
    assert list(find_gates(model)) == [
        '0.channel.gate', '0.spatial.gate', '1.gate', '3'
    ]


def test_a_shared_gate_counts_once():
    layer = ChannelAttention(32)
    assert list(find_gates(nn.ModuleDict(dict(a=layer, b=layer)))) == [
        'a.gate']


@pytest.mark.skipif(not HAS_MMPRETRAIN, reason='mmpretrain missing')
def test_gates_of_another_library():
    from mmpretrain.models import SEResNet
    model = SEResNet(depth=50)
    model.eval()
    gates = find_gates(model)
    assert len(gates) == 16
    seen = []
    with record_gates(model, lambda name, out: seen.append(out.shape)):
        model(torch.rand(1, 3, 32, 32))
    assert seen[0] == (1, 256, 1, 1) and len(seen) == 16


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('fuse', [None, False])
def test_outputs_and_gradients_are_the_same_bit_by_bit(training, fuse):
    outputs = []
    for listen in (False, True):
        torch.manual_seed(1)
        model = APAResNetCIFAR(depth=20, fuse=fuse).train(training)
        x = torch.rand(3, 3, 16, 16, requires_grad=True)
        seen = []
        if listen:
            with record_gates(model, lambda *c, s=seen: s.append(c)):
                out = model(x)[-1]
            assert len(seen) == 9 and num_hooks(model) == 0
        else:
            out = model(x)[-1]
        out.square().sum().backward()
        outputs.append([out, x.grad, *(p.grad for p in model.parameters()),
                        *model.buffers()])
    for plain, heard in zip(*outputs, strict=True):
        assert torch.equal(plain, heard)


def test_what_is_heard_is_what_scales_the_channels():
    layer = ChannelAttention(32).eval()
    x = torch.rand(2, 32, 4, 4)
    seen = []
    with record_gates(layer, lambda name, out: seen.append((name, out))):
        y = layer(x)
    (name, gate), = seen
    assert name == 'gate'
    assert torch.allclose(y, x * gate[:, :, None, None])


def test_hooks_are_gone_after_an_exception_in_the_block():
    model = backbone()
    with pytest.raises(KeyError):
        with record_gates(model, lambda *c: None):
            assert num_hooks(model) == 9
            raise KeyError
    assert num_hooks(model) == 0


def test_hooks_are_gone_after_an_exception_in_the_forward_pass():
    model = backbone()
    with pytest.raises(ZeroDivisionError):
        with record_gates(model, lambda *c: 1 / 0):
            model(torch.rand(1, 3, 8, 8))
    assert num_hooks(model) == 0


def test_hooks_are_gone_if_one_cannot_be_set():
    gate = ChannelAttention(32)
    with pytest.raises(AttributeError):
        with record_gates(gate, lambda *c: None,
                          dict(good=gate.gate, bad=None)):
            pass
    assert num_hooks(gate) == 0
