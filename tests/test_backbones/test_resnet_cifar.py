"""Tests of the CIFAR ResNet: counts, formula, shortcut, freezing."""
import pytest
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS as PRETRAIN_MODELS

from apa_mm.backbones import APAResNetCIFAR
from apa_mm.layers import AGLU, APA

SIGMOID = dict(type='Sigmoid')
SE = dict(
    type='apa_mm.ChannelAttention',
    reduction=4,
    gate_cfg=SIGMOID,
    norm_cfg=None,
    dropout=0.)
BASELINE = dict(act_cfg=dict(type='ReLU', inplace=True), attention_cfg=SE)
BOTH = dict(type='apa_mm.CBAM', reduction=4)
CHANNEL = dict(BOTH, spatial_gate_cfg=SIGMOID)


def count(model, kind=None):
    if kind is None:
        return sum(p.numel() for p in model.parameters())
    return sum(isinstance(m, kind) for m in model.modules())


@pytest.mark.parametrize('kwargs, keys, tensors, parameters, units, gates', [
    ({}, 340, 247, 484_656, 31, 15),
    (BASELINE, 218, 125, 483_444, 0, 0),
    (dict(attention_cfg=BOTH), 490, 352, 486_886, 31, 30),
    (dict(attention_cfg=CHANNEL), 460, 322, 486_856, 31, 15),
])
def test_counts_of_the_authors_resnet32(kwargs, keys, tensors, parameters,
                                        units, gates):
    model = APAResNetCIFAR(32, **kwargs)
    head = 64 * 100 + 100  # the counts include a 100-way linear head
    assert len(model.state_dict()) + 2 == keys
    assert len(list(model.parameters())) + 2 == tensors
    assert count(model) + head == parameters
    assert (count(model, AGLU), count(model, APA)) == (units, gates)


def test_plain_networks_have_the_published_sizes():
    # Table 6 of "Deep Residual Learning" (0.27M to 1.7M) in full digits,
    # with the 10-way head's 650.
    for depth, want in [(20, 269_722), (32, 464_154), (44, 658_586),
                        (56, 853_018), (110, 1_727_962)]:
        model = APAResNetCIFAR(
            depth, act_cfg=dict(type='ReLU'), attention_cfg=None)
        assert count(model) + 650 == want


def unit(x, module):
    return x * eta(x, module)


def eta(x, module):
    return (module.lambd * torch.exp(-module.kappa * x) + 1)**(
        -1 / module.lambd)


def block_formula(x, block):
    out = unit(block.bn1(block.conv1(x)), block.act1)
    out = block.bn2(block.conv2(out))
    se = block.attention
    s = F.layer_norm(out.mean((2, 3)), out.shape[1:2])
    e = torch.relu(s @ se.fc1.weight.T) @ se.fc2.weight.T
    out = out * eta(e, se.gate)[..., None, None]
    if out.shape != x.shape:
        old, quarter = x[:, :, ::2, ::2], out.shape[1] // 4
        x = torch.zeros_like(out)
        x[:, quarter:-quarter] = old
    return unit(out + x, block.act2)


def test_the_network_follows_its_formula():
    model = APAResNetCIFAR(20, out_indices=(0, 1, 2)).double().eval()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    outs = model(images)
    x = unit(model.bn1(model.conv1(images)), model.act1)
    for stage, out in zip(model.stages, outs, strict=True):
        for block in stage:
            x = block_formula(x, block)
        torch.testing.assert_close(out, x)
    assert [tuple(o.shape[1:]) for o in outs] == [(16, 32, 32), (32, 16, 16),
                                                  (64, 8, 8)]


def test_shortcuts_have_no_parameters():
    names = APAResNetCIFAR(20).state_dict()
    assert not [name for name in names if 'downsample' in name]


def test_every_parameter_gets_a_gradient():
    model = APAResNetCIFAR(20)
    model(torch.rand(2, 3, 32, 32))[0].square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize('frozen_stages', [0, 2, 3])
def test_frozen_stages(frozen_stages):
    model = APAResNetCIFAR(20, frozen_stages=frozen_stages).train()
    for name, parameter in model.named_parameters():
        stage = int(name[5]) if name.startswith('layer') else 0
        assert parameter.requires_grad == (stage > frozen_stages), name
    for i, stage in enumerate(model.stages, 1):
        assert all(m.training == (i > frozen_stages) for m in stage.modules())


def test_init_is_kaiming_over_fan_in():
    model = APAResNetCIFAR(110)
    model.init_weights()

    def std(layers):
        return torch.cat([m.weight.flatten() for m in layers]).std().item()

    first = [model.layer3[0].conv1]  # 32 -> 64 channels: the fans differ
    assert std(first) == pytest.approx((2 / (32 * 9))**.5, rel=.03)
    linear = [block.attention.fc1 for block in model.layer3]
    assert std(linear) == pytest.approx((2 / 64)**.5, rel=.03)


def test_arguments_take_effect():
    model = APAResNetCIFAR(
        20,
        in_channels=1,
        conv_cfg=dict(type='ConvWS'),
        norm_cfg=dict(type='GN', num_groups=8),
        act_cfg=dict(type='apa_mm.AGLU', num_parameters='channels'),
        zero_init_residual=True,
        with_cp=True)
    model.init_weights()
    assert type(model.conv1).__name__ == 'ConvWS2d'
    assert model.conv1.in_channels == 1
    assert model.layer2[0].act1.num_parameters == 32
    assert (model.layer1[0].gn2.weight == 0).all()
    assert model.layer1[0].with_cp
    model(torch.rand(1, 1, 32, 32))[0].sum().backward()
    norm_eval = APAResNetCIFAR(20, norm_eval=True).train()
    assert not norm_eval.bn1.training


def test_fused_and_plain_networks_agree():
    grads = []
    for fuse in (True, False):
        torch.manual_seed(3)
        model = APAResNetCIFAR(20, fuse=fuse).double()
        x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
        torch.manual_seed(4)
        model(x)[0].square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*grads)


def test_classifier_of_mmpretrain():
    model = PRETRAIN_MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='apa_mm.APAResNetCIFAR', depth=20),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=64)))
    assert model.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize('kwargs, match', [
    (dict(depth=38), r'depth must be one of \(20, 32, 44, .* but got 38'),
    (dict(depth=18, deep_stem=True), 'remove deep_stem'),
    (dict(depth=20, out_indices=(3, )), 'out_indices must be one of.*got 3'),
])
def test_bad_arguments(kwargs, match):
    with pytest.raises(ValueError, match=match):
        APAResNetCIFAR(**kwargs)


def test_depths_of_resnet_have_projections():
    state = APAResNetCIFAR(depth=18).state_dict()
    assert state['layer2.0.downsample.0.weight'].shape == (128, 64, 1, 1)
