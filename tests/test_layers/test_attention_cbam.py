"""Tests of CBAM and spatial attention, and of plugin slots."""
import pytest
import torch
import torch.nn.functional as F
from mmdet.models import ResNet as DetResNet

from apa_mm.backbones import APAResNet
from apa_mm.layers import APA, CBAM, ChannelAttention, SpatialAttention

SIGMOID = dict(type='Sigmoid')
CBAM_BASELINE = dict(type='apa_mm.CBAM', gate_cfg=SIGMOID)


def eta(x, gate):
    return (gate.lambd * torch.exp(-gate.kappa * x) + 1)**(-1 / gate.lambd)


def spatial_logits(x, layer):
    """Slow form: the 7x7 window of every place, one by one."""
    stack = torch.stack([x.max(1)[0], x.sum(1) / x.shape[1]], 1)
    stack = F.pad(stack, (3, 3, 3, 3))
    out = x.new_empty(x.shape[0], 1, *x.shape[2:])
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            window = stack[:, :, i:i + 7, j:j + 7]
            out[:, 0, i, j] = (window * layer.conv.weight[0]).sum((1, 2, 3))
    bn = layer.bn
    out = (out - bn.running_mean) / (bn.running_var + 1e-5).sqrt()
    return out * bn.weight + bn.bias


def channel_logits(x, layer):
    pools = (x.flatten(2).sum(-1) / x[0, 0].numel(), x.flatten(2).max(-1)[0])
    total = 0
    for v in pools:
        v = F.layer_norm(v, v.shape[1:], layer.norm.weight, layer.norm.bias)
        v = torch.relu(v @ layer.fc1.weight.T + layer.fc1.bias)
        total = total + v @ layer.fc2.weight.T + layer.fc2.bias
    return total[..., None, None]


@pytest.fixture
def x():
    return torch.randn(3, 32, 6, 5, dtype=torch.float64)


def perturbed(layer):
    """Move every tensor off its start, so that none can be left out."""
    for tensor in (*layer.parameters(), *layer.buffers()):
        if tensor.is_floating_point():
            tensor.data.add_(torch.rand_like(tensor) * .5)
    return layer.double().eval()


def test_spatial_attention_follows_its_formula(x):
    layer = perturbed(SpatialAttention())
    want = x * eta(spatial_logits(x, layer), layer.gate)
    torch.testing.assert_close(layer(x), want)
    assert layer.bn.momentum == 0.01 and layer.conv.bias is None


def test_cbam_is_channel_then_spatial(x):
    layer = perturbed(CBAM(32))
    z = x * eta(channel_logits(x, layer.channel), layer.channel.gate)
    want = z * eta(spatial_logits(z, layer.spatial), layer.spatial.gate)
    torch.testing.assert_close(layer(x), want)


def test_cbam_dropout_is_drawn_once_per_pooling(x):
    layer = CBAM(
        32, gate_cfg=SIGMOID, norm_cfg=None, dropout=.5, bias=False).double()
    gates = (layer.channel(x) / x)[:, :, 0, 0]
    both = ((gates - .5).abs() < 1e-9).double().mean()
    assert .1 < both < .45  # both dropped: a quarter, not a half


@pytest.mark.parametrize('kwargs, gone', [
    (dict(norm_cfg=None), {'channel.norm.weight', 'channel.norm.bias'}),
    (dict(spatial_gate_cfg=SIGMOID),
     {'spatial.gate.kappa', 'spatial.gate.lambd'}),
    (dict(gate_cfg=SIGMOID, spatial_gate_cfg=dict(type='apa_mm.APA')),
     {'channel.gate.kappa', 'channel.gate.lambd'}),
    (dict(gate_cfg=SIGMOID), {
        'channel.gate.kappa', 'channel.gate.lambd', 'spatial.gate.kappa',
        'spatial.gate.lambd'
    }),
    (dict(bias=False), {'channel.fc1.bias', 'channel.fc2.bias'}),
    (dict(spatial_norm_cfg=None), {
        f'spatial.bn.{name}'
        for name in ('weight', 'bias', 'running_mean', 'running_var',
                     'num_batches_tracked')
    }),
    (dict(dropout=0.), set()),
])
def test_switches_act_one_by_one(kwargs, gone):
    other = CBAM(32, **kwargs)
    assert set(CBAM(32).state_dict()) - set(other.state_dict()) == gone
    assert (other.channel.dropout is None) == ('dropout' in kwargs)
    other(torch.rand(2, 32, 4, 4))


def test_gates_start_from_the_ranges_of_the_authors():
    layer = CBAM(64)
    for gate in (layer.channel.gate, layer.spatial.gate):
        assert gate.kappa_init == (0., 1.)
    layer = CBAM(
        64, reduction=4, kernel_size=3, gate_cfg=dict(type='apa_mm.APA'))
    assert layer.spatial.gate.kappa_init == (-1., 0.)
    assert layer.channel.fc1.weight.shape == (16, 64)
    assert layer.spatial.conv.weight.shape == (1, 2, 3, 3)


@pytest.mark.parametrize('layer', [CBAM(32), SpatialAttention()])
def test_every_parameter_gets_a_gradient(layer):
    layer(torch.rand(2, 32, 5, 5)).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


# --- in APAResNet: counts of the authors' networks, 1000-way linear head ---
def count(model):
    state = len(model.state_dict()) + 2
    tensors = len(list(model.parameters())) + 2
    numbers = sum(p.numel() for p in model.parameters()) + 2048 * 1000 + 1000
    gates = sum(isinstance(m, APA) for m in model.modules())
    return state, tensors, numbers, gates


RELU = dict(type='ReLU', inplace=True)
BOTH = dict(type='apa_mm.CBAM')
SPATIAL = dict(type='apa_mm.SpatialAttention')


@pytest.mark.parametrize('depth, kwargs, want', [
    (50, dict(attention_cfg=BOTH), (674, 467, 28_119_994, 32)),
    (50, dict(attention_cfg=dict(BOTH, spatial_gate_cfg=SIGMOID)),
     (642, 435, 28_119_962, 16)),
    (50, dict(attention_cfg=CBAM_BASELINE, act_cfg=RELU),
     (512, 305, 28_119_832, 0)),
    (50, dict(attention_cfg=BOTH, groups=32, base_width=4),
     (674, 467, 27_591_866, 32)),
    (152, dict(attention_cfg=BOTH), (2034, 1419, 66_923_094, 100)),
    (50, dict(attention_cfg=SPATIAL), (546, 339, 25_558_762, 16)),
    (50, dict(attention_cfg=dict(SPATIAL, gate_cfg=SIGMOID), act_cfg=RELU),
     (416, 209, 25_558_632, 0)),
])
def test_counts_of_the_authors_networks(depth, kwargs, want):
    assert count(APAResNet(depth, **kwargs)) == want


# --- as plugin layers of mmdet's ResNet ---
PLUGINS = [('ChannelAttention', 'channel_attention', ChannelAttention),
           ('SpatialAttention', 'spatial_attention', SpatialAttention),
           ('CBAM', 'cbam', CBAM)]


@pytest.mark.parametrize('kind, name, cls', PLUGINS)
def test_plugin_in_mmdets_resnet(kind, name, cls):
    plugin = dict(cfg=dict(type=f'apa_mm.{kind}'), position='after_conv3')
    model = DetResNet(50, plugins=[dict(plugin)])
    assert sum(isinstance(m, cls) for m in model.modules()) == 16
    block = model.layer1[0]
    layer = getattr(block, name)
    assert block.after_conv3_plugin_names == [name]
    # Before the addition, as in APAResNet's own block.
    ours = APAResNet(
        50, act_cfg=RELU, attention_cfg=plugin['cfg'], num_stages=1,
        out_indices=(0, )).layer1[0]
    ours.load_state_dict({
        key.replace(f'{name}.', 'attention.'): value
        for key, value in block.state_dict().items()
    })
    x = torch.rand(2, 64, 8, 8)
    torch.testing.assert_close(ours.eval()(x), block.eval()(x))
    assert not torch.equal(layer(x.repeat(1, 4, 1, 1)), x.repeat(1, 4, 1, 1))


def test_plugin_in_stages_of_an_mmpretrain_classifier():
    from mmpretrain.registry import MODELS
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(
                type='mmdet.ResNet',
                depth=50,
                plugins=[
                    dict(
                        cfg=dict(type='apa_mm.CBAM', reduction=8),
                        stages=(False, False, True, True),
                        position='after_conv3')
                ]),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=5, in_channels=2048)))
    assert sum(isinstance(m, CBAM) for m in model.modules()) == 9
    assert model.eval()(torch.rand(1, 3, 32, 32)).shape == (1, 5)


# --- errors ---
@pytest.mark.parametrize('call, match', [
    (lambda: SpatialAttention(kernel_size=4), 'odd and positive.*got 4'),
    (lambda: CBAM(30), 'in_channels=30 and reduction=16; choose'),
    (lambda: CBAM(32, dropout=1.), r'dropout must be in \[0, 1\)'),
])
def test_bad_arguments(call, match):
    with pytest.raises(ValueError, match=match):
        call()
