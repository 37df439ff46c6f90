"""Every config parses, builds on the CPU and holds the modules it claims."""
import copy
import functools
import inspect
import math
from pathlib import Path

import pytest
import torch
import yaml
from support.classification_models import sizes_of
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import (MODELS, PARAM_SCHEDULERS,
                               init_default_scope)
from mmengine.runner import Runner

from apa_mm import layers
from apa_mm.layers import AGLU, APA

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(
    p.relative_to(ROOT).as_posix() for p in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in p.parts)
CLS = [c for c in CONFIGS if c.startswith('configs/cls/')]
DIGITS = [c for c in CLS if 'digits' in c]
RECIPES = [c for c in CLS if c not in DIGITS]
DET = [c for c in CONFIGS if c.startswith(('configs/det/', 'configs/demo/'))]
#: depth -> AGLU units, APA gates of an APA* ResNet.
EXPECTED = {18: (17, 8), 50: (49, 16), 101: (100, 33), 152: (151, 50)}
#: Top-level helper variables that configs of the parent libraries define.
HELPERS = {
    'dataset_type', 'data_root', 'backend_args', 'train_pipeline',
    'test_pipeline', 'max_iter', 'max_iters', 'max_epochs', 'num_classes',
    'auto_scale_lr', 'default_scope', 'metainfo', 'image_scale', 'width',
    'vis_backends', 'bgr_mean', 'bgr_std', 'imbalance_factor', 'image_size',
    'train_list', 'gate_cfg', 'ffn_cfgs', 'init_cfg', 'custom_imports'
}


@functools.lru_cache(maxsize=None)
def parsed(name):
    return Config.fromfile(ROOT / name)


def load(name):
    """Return the config's own copy for a test."""
    cfg = copy.deepcopy(parsed(name))
    init_default_scope(cfg.default_scope)
    return cfg


def build(cfg):
    return MODELS.build(cfg.model)


def build_without_memory(cfg):
    """Build a classifier whose tensors hold no numbers."""
    # Swin's drop path rates are numbers in a tensor.
    device = 'cpu' if 'Swin' in cfg.model.backbone.type else 'meta'
    with torch.device(device):
        return build(cfg)


def test_there_are_configs():
    assert len(DET) >= 20
    assert len(RECIPES) >= 80


@pytest.mark.parametrize('name', DET)
def test_config_builds_what_it_claims(name):
    cfg = load(name)
    known = set(inspect.signature(Runner.__init__).parameters) | HELPERS
    assert set(cfg) <= known, set(cfg) - known
    model = build(cfg)
    assert isinstance(model, BaseModel)
    depth = cfg.model.backbone.depth
    want = EXPECTED[depth] if '_apa-' in name else (0, 0)
    assert tuple(
        sum(isinstance(m, kind) for m in model.modules())
        for kind in (AGLU, APA)) == want
    gates = [m for n, m in model.named_modules() if n.endswith('.gate')]
    assert len(gates) == (EXPECTED[depth][1] if 'seresnet' in name else 0)


@pytest.mark.parametrize('name', DET)
def test_kappa_and_lambda_carry_no_weight_decay(name):
    cfg = load(name)
    model = build(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    decay = {
        id(p): group['weight_decay']
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    }
    ours = {
        name: decay[id(p)]
        for name, p in model.named_parameters()
        if name.split('.')[-1] in ('kappa', 'lambd') and p.requires_grad
    }
    released = name.endswith('_released.py')
    base = cfg.optim_wrapper.optimizer.weight_decay
    assert set(ours.values()) <= {base if released else 0.}
    # The stem and stage 1 are frozen in the full recipes, and so are theirs;
    # the released one leaves the stem's pair of values trainable.
    if '_apa-' in name:
        units, gates = EXPECTED[cfg.model.backbone.depth]
        frozen = 0 if 'demo' in name else 1 + 9 + 3
        assert len(ours) == 2 * (units + gates - frozen + released)
    weights = [decay[id(p)] for n, p in model.named_parameters()
               if n.endswith('neck.lateral_convs.0.conv.weight')]
    assert weights == [base]


@pytest.mark.parametrize('name', CONFIGS)
def test_config_is_portable(name):
    text = (ROOT / name).read_text()
    assert 'work_dir' not in text
    assert "'/" not in text and '"/' not in text  # absolute paths
    limit = 10 if 'apa-seresnet50_fpn_2x_coco' in name else 60
    assert len(text.splitlines()) <= limit


def test_the_released_recipe_differs_in_named_settings_only():
    folder = ROOT / 'configs/det/lvis'
    stem = 'mask-rcnn_apa-seresnet50_fpn_gol_sample1e-3-ms-2x_lvis-v1'
    ours = Config.fromfile(folder / f'{stem}.py')
    released = Config.fromfile(folder / f'{stem}_released.py')
    ours.model.backbone.freeze_stem_act = False
    head = released.model.roi_head.bbox_head.init_cfg
    assert len(head) == 1
    ours.model.roi_head.bbox_head.init_cfg = head
    ours.optim_wrapper.paramwise_cfg = None
    ours.train_cfg.val_interval = 1
    assert ours.to_dict() == released.to_dict()


def test_lvis_test_settings_are_the_papers():
    for name in DET:
        if '_gol' not in name or 'lvis-v1' not in name:
            continue
        rcnn = load(name).model.test_cfg.rcnn
        assert (rcnn.score_thr, rcnn.nms.iou_threshold, rcnn.max_per_img,
                rcnn.mask_thr_binary) == (1e-4, 0.3, 300, 0.4)


# --- classification ---
@pytest.mark.parametrize('name', RECIPES)
def test_classifier_has_the_modules_and_parameters(name):
    cfg = load(name)
    known = set(inspect.signature(Runner.__init__).parameters) | HELPERS
    assert set(cfg) <= known, set(cfg) - known
    model = build_without_memory(cfg)
    assert isinstance(model, BaseModel)
    got = (sum(p.numel() for p in model.parameters()),
           *(sum(isinstance(m, kind) for m in model.modules())
             for kind in (AGLU, APA)))
    assert got == sizes_of(name)
    if 'transformer' in name:
        assert not any(
            isinstance(m, torch.nn.GELU) for m in model.modules())


@pytest.mark.parametrize('name', DIGITS)
def test_digits_variants_have_their_modules(name):
    cfg = load(name)
    model = build(cfg)
    stem = Path(name).stem
    want = (19 if '_aglu_' in stem else 0, 9 if 'apa-' in stem else 0)
    assert tuple(
        sum(isinstance(m, kind) for m in model.modules())
        for kind in (AGLU, APA)) == want


GATES = {
    'tempered-sigmoid': layers.TemperedSigmoid,
    'tempered-gumbel': layers.TemperedGumbel,
    'gumbel': layers.Gumbel,
    'apa': APA
}
UNITS = dict(
    relu=torch.nn.ReLU,
    prelu=torch.nn.PReLU,
    elu=torch.nn.ELU,
    mish=torch.nn.Mish,
    gelu=torch.nn.GELU,
    silu=torch.nn.SiLU)


def kinds_of(name):
    """Return the types of gates and units of an ablation."""
    path = f'configs/cls/ablations/{name}_imagenet-lt.py'
    model = build_without_memory(load(path)).backbone
    gates = {type(m) for n, m in model.named_modules() if n.endswith('.gate')}
    units = [m for n, m in model.named_modules()
             if n.split('.')[-1] in ('act1', 'act2', 'act3')]
    assert len(units) == 49
    return gates, {type(m) for m in units}


@pytest.mark.parametrize('gate', GATES)
def test_gates_of_table_4a(gate):
    assert kinds_of(f'seresnet50_{gate}-gate') == ({GATES[gate]},
                                                   {torch.nn.ReLU})


@pytest.mark.parametrize('unit', UNITS)
def test_units_of_table_9(unit):
    assert kinds_of(f'resnet50_{unit}') == (set(), {UNITS[unit]})


def ranges_of(name):
    """Return the starting ranges of kappa of gates and units."""
    model = build_without_memory(load(name))
    return tuple({m.kappa_init
                  for m in model.modules() if type(m) is kind}
                 for kind in (APA, AGLU))


UNIT, GATE, OLD = (1., 1.3), (-1., 0.), (.8, 1.2)
LT = '_4xb64-mixup-200e_imagenet-lt'
IN1K = '_4xb64-mixup-100e_in1k'


@pytest.mark.parametrize('name, gate, unit', [
    (f'imagenet_lt/apa-seresnet50{LT}', GATE, UNIT),
    (f'imagenet_lt/apa-seresnet50{LT}_released', GATE, OLD),
    (f'imagenet/apa-seresnet152{IN1K}', (0., 1.), UNIT),
    (f'imagenet/apa-seresnet152{IN1K}_released', GATE, OLD),
    (f'imagenet/apa-cbam-resnet50{IN1K}', (0., 1.), UNIT),
    ('inat18/apa-seresnet50_4xb256-repeataug-500e_inat18', (0., 1.), UNIT),
    ('inat18/apa-seresnet50_4xb256-repeataug-500e_inat18_released', GATE,
     OLD),
    ('cifar100_lt/apa-seresnet32_1xb512-mixup-500e_cifar100-lt-ir10', GATE,
     UNIT),
    ('cifar100_lt/apa-cbam-resnet32_1xb512-mixup-500e_cifar100-lt-ir10',
     (0., 1.), UNIT),
    ('ablations/apa-seresnet50_unit-kappa-0-1_imagenet-lt', GATE, (0., 1.)),
    ('ablations/apa-seresnet50_unit-kappa-neg2-0_imagenet-lt', GATE,
     (-2., 0.)),
    ('ablations/apa-seresnet50_unit-kappa-neg3-0_imagenet-lt', GATE,
     (-3., 0.)),
    ('ablations/apa-seresnet50_unit-kappa-neg2-2_imagenet-lt', GATE,
     (-2., 2.)),
    ('ablations/apa-seresnet50_gate-kappa-0-1_imagenet-lt', (0., 1.), UNIT),
])
def test_starting_ranges_of_kappa(name, gate, unit):
    assert ranges_of(f'configs/cls/{name}.py') == ({gate}, {unit})


@pytest.mark.parametrize('name', CLS)
def test_what_decays_in_classifiers(name):
    cfg = load(name)
    model = build_without_memory(cfg)
    wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')
    wrapper.pop('loss_scale', None)
    wrapper = build_optim_wrapper(model, wrapper)
    decay = {
        id(p): group['weight_decay']
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    }
    base = cfg.optim_wrapper.optimizer.weight_decay
    want = dict(ours=0., weight=base, bias=0., norm=base)
    released = '_released' in name and not any(
        folder in name for folder in ('swin', 'ablations'))
    if 'digits' in name or released:
        want['bias'] = base
    if 'inat18' in name or 'transformer' in name:
        want['norm'] = 0.
    for module_name, module in model.named_modules():
        is_norm = 'Norm' in type(module).__name__
        for leaf, parameter in module.named_parameters(recurse=False):
            if leaf in ('kappa', 'lambd'):
                kind = 'ours'
            elif is_norm and (leaf == 'weight' or want['norm'] == 0):
                kind = 'norm'
            elif leaf in ('weight', 'bias'):
                kind = leaf if parameter.ndim > 1 or leaf == 'bias' else None
            else:
                kind = None  # position tables and the like
            if kind is not None and parameter.requires_grad:
                assert decay[id(parameter)] == want[kind], module_name


def learning_rates(cfg):
    """Return the rate of every epoch, as a Runner would set it."""
    epochs = cfg.train_cfg.max_epochs
    wrapper = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))],
                              lr=cfg.optim_wrapper.optimizer.lr)
    # Runner.build_param_scheduler gives the open end like this.
    schedulers = [
        PARAM_SCHEDULERS.build(
            dict(dict(end=epochs), **copy.deepcopy(item)),
            default_args=dict(optimizer=wrapper))
        for item in cfg.param_scheduler
    ]
    rates = []
    for _ in range(epochs):
        rates.append(wrapper.param_groups[0]['lr'])
        wrapper.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


#: Peak, epochs, warm-up epochs, momentum, weight decay, images per step.
TABLE_8 = dict(
    imagenet=(.256, 100, 3, .875, 6.103515625e-5, 256),
    imagenet_lt=(.2, 200, 3, .9, 1e-4, 256),
    inat18=(.5, 500, 5, .9, 1e-4, 1024),
    places_lt=(.1, 40, 3, .9, 5e-5, 256),
    cifar100_lt=(.2, 500, 3, .9, 1e-3, 512),
    ablations=(.2, 200, 3, .9, 1e-4, 256))


@pytest.mark.parametrize('name',
                         [c for c in RECIPES if 'transformer' not in c])
def test_schedules_are_those_of_table_8(name):
    cfg = load(name)
    peak, epochs, warm, momentum, decay, batch = TABLE_8[name.split('/')[2]]
    if '_crt_' in name:
        epochs = 10
    assert cfg.train_cfg.max_epochs == epochs
    want = [
        peak * (.01 + .99 * e / warm) if e < warm else peak / 2 *
        (1 + math.cos(math.pi * (e - warm) / (epochs - warm)))
        for e in range(epochs)
    ]
    assert learning_rates(cfg) == pytest.approx(want, abs=1e-12)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.momentum, optimizer.weight_decay) == (
        'SGD', momentum, decay)
    assert not optimizer.get('nesterov', False)
    gpus = 1 if 'cifar' in name else 4
    assert cfg.train_dataloader.batch_size * gpus == batch
    assert cfg.auto_scale_lr.base_batch_size == batch


@pytest.mark.parametrize('folder', sorted(
    p.parent.relative_to(ROOT).as_posix()
    for p in (ROOT / 'configs').rglob('metafile.yml')))
def test_metafile_and_readme_name_every_config(folder):
    models = yaml.safe_load((ROOT / folder / 'metafile.yml').read_text())
    configs = {c for c in CONFIGS if c.startswith(folder + '/')}
    assert {m['Config'] for m in models['Models']} == configs
    assert {m['Name'] for m in models['Models']} == {
        Path(c).stem for c in configs}
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert f'{folder}/metafile.yml' in index['Import']
    if folder.startswith('configs/cls/'):
        text = (ROOT / folder / 'README.md').read_text()
        for config in configs:
            assert f'`{Path(config).stem}`' in text, config
