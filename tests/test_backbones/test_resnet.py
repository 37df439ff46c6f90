"""Tests of APAResNet: counts, formulas, freezing, fit with the libraries."""
from types import SimpleNamespace

import pytest
import torch
from mmdet.models import ResNet as DetResNet
from mmengine.analysis import get_model_complexity_info
from mmengine.optim import build_optim_wrapper
from mmpretrain.models import ResNet as ClsResNet
from mmpretrain.registry import MODELS

from apa_mm.backbones import APAResNet
from apa_mm.layers import AGLU, APA, ChannelAttention

SE = dict(
    type='apa_mm.ChannelAttention',
    gate_cfg=dict(type='Sigmoid'),
    norm_cfg=None,
    dropout=0.)
BASELINE = dict(act_cfg=dict(type='ReLU', inplace=True), attention_cfg=SE)
RESNEXT = dict(groups=32, base_width=4)


def count(model, kind=None):
    if kind is None:
        return sum(p.numel() for p in model.parameters())
    return sum(isinstance(m, kind) for m in model.modules())


@pytest.mark.parametrize(
    'depth, kwargs, keys, parameters, units, gates',
    [(50, {}, 514, 28_102_314, 49, 16),
     (50, BASELINE, 352, 28_071_976, 0, 0),
     (50, RESNEXT, 514, 27_574_186, 49, 16),
     (50, dict(RESNEXT, **BASELINE), 352, 27_543_848, 0, 0),
     (101, {}, 1024, 49_357_618, 100, 33),
     (101, BASELINE, 692, 49_292_328, 0, 0),
     (152, {}, 1534, 66_867_130, 151, 50),
     (152, BASELINE, 1032, 66_770_984, 0, 0)])
def test_counts_of_the_authors_networks(depth, kwargs, keys, parameters, units,
                                        gates):
    model = APAResNet(depth, **kwargs)
    head = 2048 * 1000 + 1000  # the counts include a 1000-way linear head
    assert len(model.state_dict()) + 2 == keys
    assert count(model) + head == parameters
    assert (count(model, AGLU), count(model, APA)) == (units, gates)


def test_mmengine_counts_its_operations():
    found = get_model_complexity_info(
        APAResNet(50).eval(), (3, 224, 224), show_table=False, show_arch=False)
    assert (found['flops_str'], found['params_str']) == ('4.112G', '26.053M')


def eta(x, module):
    return (module.lambd * torch.exp(-module.kappa * x) + 1)**(
        -1 / module.lambd)


@pytest.mark.parametrize('depth', [18, 50])
def test_block_follows_the_papers_formula(depth):
    block = APAResNet(depth, num_stages=1, out_indices=(0, )).double().eval()
    block = block.layer1[0]
    x = torch.randn(2, 64, 6, 6, dtype=torch.float64)

    def unit(x, module):
        return x * eta(x, module)

    out = unit(block.bn1(block.conv1(x)), block.act1)
    out = block.bn2(block.conv2(out))
    if depth == 50:
        out = block.bn3(block.conv3(unit(out, block.act2)))
    se = block.attention
    s = se.norm(out.mean((2, 3)))
    e = torch.relu(s @ se.fc1.weight.T) @ se.fc2.weight.T
    out = out * eta(e, se.gate)[..., None, None]
    out = out + (x if block.downsample is None else block.downsample(x))
    want = unit(out, block.last_act)
    torch.testing.assert_close(block(x), want, rtol=1e-10, atol=1e-10)


def test_every_parameter_gets_a_gradient():
    model = APAResNet(depth=18)
    outs = model(torch.rand(2, 3, 64, 64))
    sum(out.square().mean() for out in outs).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_activations_are_never_shared():
    model = APAResNet(depth=18)
    units = [m.kappa for m in model.modules() if isinstance(m, AGLU)]
    assert len({id(p) for p in units}) == len(units) == 17


def test_output_stages():
    model = APAResNet(depth=18, out_indices=(1, 3))
    shapes = [tuple(o.shape) for o in model(torch.rand(1, 3, 64, 64))]
    assert shapes == [(1, 128, 8, 8), (1, 512, 2, 2)]
    dilated = APAResNet(
        depth=50, num_stages=4, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
    assert dilated.eval()(torch.rand(1, 3, 64, 64))[-1].shape[-1] == 4


def test_caffe_style_moves_the_stride():
    block = APAResNet(depth=50, style='caffe').layer2[0]
    assert block.conv1.stride == (2, 2) and block.conv2.stride == (1, 1)
    block = APAResNet(depth=50).layer2[0]
    assert block.conv1.stride == (1, 1) and block.conv2.stride == (2, 2)


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 4])
def test_frozen_stages_freeze_everything(frozen_stages):
    model = APAResNet(depth=18, frozen_stages=frozen_stages).train()
    stem = ('conv1.', 'bn1.', 'act1.')
    for name, parameter in model.named_parameters():
        stage = 0 if name.startswith(stem) else int(name[len('layer')])
        assert parameter.requires_grad == (stage > frozen_stages), name
    for i, stage in enumerate(model.stages, 1):
        assert all(m.training == (i > frozen_stages) for m in stage.modules())


def test_released_form_leaves_the_stem_unit_trainable():
    model = APAResNet(depth=18, frozen_stages=1, freeze_stem_act=False)
    trainable = {
        name.split('.')[0]
        for name, p in model.named_parameters() if p.requires_grad
    }
    assert trainable == {'act1', 'layer2', 'layer3', 'layer4'}


def test_frozen_stages_keep_their_dropout_off():
    model = APAResNet(depth=18, frozen_stages=1, out_indices=(0, )).train()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(model(x)[0], model(x)[0])


def test_norm_eval_keeps_the_statistics():
    model = APAResNet(depth=18, norm_eval=True).train()
    before = model.bn1.running_mean.clone()
    model(torch.rand(2, 3, 32, 32))
    assert torch.equal(model.bn1.running_mean, before)
    assert model.layer4[0].attention.dropout.training
    model.norm_eval = False
    model.train()(torch.rand(2, 3, 32, 32))
    assert not torch.equal(model.bn1.running_mean, before)


def test_norm_cfg_and_conv_cfg_take_effect():
    model = APAResNet(
        depth=18,
        norm_cfg=dict(type='GN', num_groups=8),
        conv_cfg=dict(type='ConvWS'))
    assert count(model, torch.nn.BatchNorm2d) == 0
    assert type(model.conv1).__name__ == 'ConvWS2d'
    assert 'layer1.0.gn1.weight' in model.state_dict()
    frozen = APAResNet(
        depth=18, norm_cfg=dict(type='BN', requires_grad=False))
    assert not frozen.layer4[1].bn2.weight.requires_grad


def test_per_channel_activations():
    cfg = dict(type='apa_mm.AGLU', num_parameters='channels')
    model = APAResNet(depth=50, act_cfg=cfg)
    assert model.layer1[0].act1.num_parameters == 64
    assert model.layer1[0].act3.num_parameters == 256
    model.eval()(torch.rand(1, 3, 32, 32))


def test_checkpointing_gives_the_same_gradients():
    grads = []
    for with_cp in (False, True):
        torch.manual_seed(3)
        model = APAResNet(depth=18, with_cp=with_cp)
        torch.manual_seed(4)
        model(torch.rand(2, 3, 32, 32))[-1].sum().backward()
        grads.append([p.grad for p in model.parameters()])
    for plain, recomputed in zip(*grads, strict=True):
        torch.testing.assert_close(plain, recomputed)


@pytest.mark.parametrize('depth, name', [(18, 'bn2'), (50, 'bn3')])
def test_zero_init_residual(depth, name):
    for flag in (False, True):
        model = APAResNet(depth, zero_init_residual=flag)
        model.init_weights()
        weight = getattr(model.layer1[0], name).weight
        assert (weight == (0 if flag else 1)).all()


def test_init_is_kaiming_for_convolutions():
    model = APAResNet(depth=18)
    kappa = model.act1.kappa.clone()
    model.init_weights()
    std = model.layer4[1].conv2.weight.std().item()
    assert std == pytest.approx((2 / (512 * 9))**.5, rel=0.02)
    assert torch.equal(model.act1.kappa, kappa)


NAMES = ('conv1.weight', 'layer1.0.conv1.weight', 'layer1.2.bn1.bias',
         'layer2.0.conv1.weight', 'layer2.3.conv3.weight',
         'layer3.0.conv1.weight', 'layer3.5.bn2.weight',
         'layer4.0.downsample.0.weight', 'layer4.2.conv3.weight')


@pytest.mark.parametrize('depth', [34, 50, 101, 152])
def test_layer_depth_is_that_of_mmpretrain(depth):
    with torch.device('meta'):
        ours = APAResNet(depth)
    theirs = SimpleNamespace(stage_blocks=ClsResNet.arch_settings[depth][1])
    for name in [f'backbone.{name}' for name in NAMES] + ['head.fc.weight']:
        want = ClsResNet.get_layer_depth(theirs, name, 'backbone.')
        assert ours.get_layer_depth(name, 'backbone.') == want, name
    if depth == 50:
        assert ours.get_layer_depth('conv1.weight') == (0, 8)
        assert ours.get_layer_depth('layer3.5.act1.kappa') == (5, 8)


def test_layerwise_decay_reaches_the_stem_by_seven_steps():
    with torch.device('meta'):
        model = MODELS.build(dict(
            type='ImageClassifier',
            backbone=dict(type='apa_mm.APAResNet', depth=50,
                          out_indices=(3, )),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=2, in_channels=2048)))
    optimizer = build_optim_wrapper(model, dict(
        type='OptimWrapper',
        constructor='mmpretrain.LearningRateDecayOptimWrapperConstructor',
        optimizer=dict(type='SGD', lr=1., weight_decay=0.),
        paramwise_cfg=dict(layer_decay_rate=0.75))).optimizer
    rates = {group['param_name']: group['lr']
             for group in optimizer.param_groups}
    for name, steps in {'backbone.conv1.weight': 7, 'backbone.act1.kappa': 7,
                        'backbone.layer4.2.act3.lambd': 1,
                        'head.fc.weight': 0}.items():
        assert rates[name] == pytest.approx(0.75**steps), name


# --- pretrained weights ---
def test_pretrained_loads_everything(tmp_path):
    source = APAResNet(depth=18)
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'a.pth')
    cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'))
    model = APAResNet(depth=18, init_cfg=cfg)
    model.init_weights()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name]), name


def test_pretrained_with_a_prefix(tmp_path):
    source = APAResNet(depth=18)
    state = {f'backbone.{k}': v for k, v in source.state_dict().items()}
    path = str(tmp_path / 'a.pth')
    torch.save(dict(state_dict=state), path)
    with pytest.raises(ValueError, match="set prefix='backbone.'"):
        APAResNet(
            depth=18, init_cfg=dict(type='Pretrained',
                                    checkpoint=path)).init_weights()
    model = APAResNet(
        depth=18,
        init_cfg=dict(
            type='Pretrained', checkpoint=path, prefix='backbone.'))
    model.init_weights()
    assert torch.equal(model.conv1.weight, source.conv1.weight)


def pretrained(source, path, **kwargs):
    state = {f'module.{k}': v for k, v in source.state_dict().items()}
    torch.save(dict(state, **{'module.fc.weight': torch.ones(1)}), path)
    model = APAResNet(
        init_cfg=dict(type='Pretrained', checkpoint=str(path)), **kwargs)
    model.init_weights()
    return model


PLAIN = dict(act_cfg=dict(type='ReLU'))
SE = dict(PLAIN, attention_cfg=dict(
    type='apa_mm.ChannelAttention', gate_cfg=dict(type='Sigmoid')))


def test_a_whole_file_is_taken_with_the_prefix_of_ddp(tmp_path):
    source = DetResNet(50)
    model = pretrained(
        source, tmp_path / 'a.pth', depth=50, attention_cfg=None, **PLAIN)
    assert torch.equal(model.conv1.weight, source.conv1.weight)


@pytest.mark.parametrize('source, wanted, words', [
    (dict(depth=50, attention_cfg=None, **PLAIN), dict(depth=50),
     'kappa and lambda would stay random'),
    (dict(depth=50, attention_cfg=None, **PLAIN),
     dict(depth=101, attention_cfg=None, **PLAIN), 'same architecture'),
    (dict(depth=18), dict(depth=34), 'kappa and lambda'),
    (dict(depth=18, **SE), dict(depth=18), 'kappa and lambda'),
], ids=['R50 -> APA', 'R50 -> R101', 'R18 -> R34', 'SE -> APA'])
def test_files_that_would_leave_something_random(tmp_path, source, wanted,
                                                 words):
    with pytest.raises(
            ValueError,
            match=f'does not fit APAResNet: .*{words}.*convert_checkpoint.py'):
        pretrained(APAResNet(**source), tmp_path / 'a.pth', **wanted)


def test_weights_with_nan_are_refused(tmp_path):
    source = APAResNet(18)
    source.layer2[0].conv1.weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match='infinity in 1 .*layer2.0.conv1'):
        pretrained(source, tmp_path / 'a.pth', depth=18)


@pytest.mark.parametrize('other', [34, 50, 101])
def test_another_architecture_is_refused(tmp_path, other):
    path = str(tmp_path / 'a.pth')
    torch.save(dict(state_dict=APAResNet(other).state_dict()), path)
    depth = 50 if other == 101 else 18  # 101 holds every tensor of 50
    model = APAResNet(
        depth, init_cfg=dict(type='Pretrained', checkpoint=path))
    before = model.conv1.weight.clone()
    with pytest.raises(
            ValueError,
            match='does not fit APAResNet: .* tensors match.*same '
            'architecture'):
        model.init_weights()
    assert torch.equal(model.conv1.weight, before)


def test_raw_training_file_is_refused(tmp_path):
    path = str(tmp_path / 'raw.pth')
    torch.save(dict(model=APAResNet(18).state_dict(), epoch=99), path)
    model = APAResNet(
        18, init_cfg=dict(type='Pretrained', checkpoint=path))
    with pytest.raises(ValueError, match="no 'state_dict'.*'epoch', 'model'"
                       '.*tools/convert_checkpoint.py'):
        model.init_weights()


def test_a_missing_file_says_how_to_mend(tmp_path):
    path = str(tmp_path / 'none.pth')
    model = APAResNet(
        18, init_cfg=dict(type='Pretrained', checkpoint=path))
    with pytest.raises(
            FileNotFoundError, match='none.pth does not exist; make it with'):
        model.init_weights()


# --- errors ---
@pytest.mark.parametrize('kwargs, match', [
    (dict(depth=20), r'depth must be one of \(18, 34, 50, 101, 152\), but '
     'got 20'),
    (dict(depth=50, style='torch'), "style must be one of.*'torch'"),
    (dict(depth=50, out_indices=(4, )), 'out_indices must be one of.*got 4'),
    (dict(depth=50, num_stages=2), 'out_indices must be one of.*got 2'),
    (dict(depth=50, frozen_stages=5), 'frozen_stages must be one of.*got 5'),
    (dict(depth=18, groups=32), 'use depth 50 or more for ResNeXt'),
])
def test_bad_arguments(kwargs, match):
    with pytest.raises(ValueError, match=match):
        APAResNet(**kwargs)


def test_attention_cfg_and_act_cfg_are_independent():
    model = APAResNet(depth=18, act_cfg=dict(type='ReLU'))
    assert (count(model, APA), count(model, AGLU)) == (8, 0)
    model = APAResNet(depth=18, attention_cfg=None)
    assert (count(model, ChannelAttention), count(model, AGLU)) == (0, 17)
