"""Every config parses, builds and holds the modules it claims.

The rows of the paper and their figures: ``test_paper_rows.py``.
"""
import copy
import inspect
import math
import re
from pathlib import Path

import pytest
import torch
from support.classification_models import sizes_of
from support.configs import (CONFIGS, DET, DIGITS, HELPERS, RECIPES, ROOT,
                             build_on_meta, load, settings)
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import Runner

from apa_mm import layers
from apa_mm.data.dataset_files import find_data_files
from apa_mm.engine.launch_options import add_hooks, set_safe_checkpoints
from apa_mm.layers import AGLU, APA

#: depth -> AGLU units, APA gates of an APA* ResNet.
EXPECTED = {18: (17, 8), 50: (49, 16), 101: (100, 33), 152: (151, 50)}
BASES = sorted((ROOT / 'configs/_base_').rglob('*.py'))


def check_model(cfg):
    """Build the model on meta; every top-level key must be known."""
    known = set(inspect.signature(Runner.__init__).parameters) | HELPERS
    assert set(cfg) <= known, set(cfg) - known
    check_hooks(cfg)
    model = build_on_meta(cfg)
    assert isinstance(model, BaseModel)
    return model


def check_hooks(cfg):
    """Any script gets the safe hooks, and the launcher adds no second."""
    names = ['SafeCheckpointHook', 'NonFiniteLossHook', 'WeightDecayCheckHook']
    custom = list(cfg.get('custom_hooks') or [])
    launched = copy.deepcopy(cfg)
    set_safe_checkpoints(launched)
    add_hooks(launched, *names[1:])
    for own in (cfg, launched):
        found = [hook['type'] for hook in own.default_hooks.values()]
        assert [found.count(f'apa_mm.{name}') for name in names] == [1] * 3
        assert list(own.get('custom_hooks') or []) == custom


def count(model, *kinds):
    return tuple(
        sum(isinstance(m, kind) for m in model.modules()) for kind in kinds)


def decays(cfg, model):
    """Return every parameter's weight decay in the built optimizer."""
    wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')
    wrapper.pop('loss_scale', None)
    wrapper = build_optim_wrapper(model, wrapper)
    return {
        id(p): group['weight_decay']
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    }


def test_there_are_configs():
    assert len(DET) >= 24
    assert len(RECIPES) >= 115


@pytest.mark.parametrize('name', DET)
def test_detector_is_what_it_claims(name):
    cfg = load(name)
    model = check_model(cfg)
    depth = cfg.model.backbone.depth
    want = EXPECTED[depth] if '_apa-' in name else (0, 0)
    assert count(model, AGLU, APA) == want
    gates = [m for n, m in model.named_modules() if n.endswith('.gate')]
    assert len(gates) == (EXPECTED[depth][1] if 'seresnet' in name else 0)
    check_detectors_decay(name, cfg, model)


def check_detectors_decay(name, cfg, model):
    decay = decays(cfg, model)
    ours = {
        key: decay[id(p)]
        for key, p in model.named_parameters()
        if key.split('.')[-1] in ('kappa', 'lambd') and p.requires_grad
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
    biases = [decay[id(p)] for key, p in model.named_parameters()
              if key.endswith('.bias') and p.requires_grad]
    weightless = 'lvis' in name and not released  # Table 8; the demo's own
    assert set(biases) == {0. if weightless else base}
    if 'apa-seresnet50_fpn_gol_sample' in name:
        assert len(biases) == 77
    weights = [decay[id(p)] for key, p in model.named_parameters()
               if key.endswith('neck.lateral_convs.0.conv.weight')]
    assert weights == [base]


@pytest.mark.parametrize('name', DET)
def test_annotations_are_cached_by_default(name):
    files = [item for item in find_data_files(load(name))
             if 'Metric' not in item.reader]
    assert {item.split for item in files} == {'train', 'val', 'test'}
    assert all(item.build for item in files)


@pytest.mark.parametrize('name', CONFIGS)
def test_config_is_portable_and_a_short_child(name):
    text = (ROOT / name).read_text()
    assert 'work_dir' not in text
    assert "'/" not in text and '"/' not in text  # absolute paths
    assert len(text.splitlines()) <= 10
    assert max(map(len, text.splitlines())) <= 79


@pytest.mark.parametrize('path', BASES, ids=lambda p: p.stem)
def test_a_recipe_is_at_most_sixty_lines(path):
    assert len(path.read_text().splitlines()) <= 60


def test_what_is_said_once():
    """The SE baseline and the rule of no decay stand in one place each."""
    texts = {p: p.read_text() for p in (ROOT / 'configs').rglob('*.py')}
    se = [p.name for p, text in texts.items()
          if re.search(r"gate_cfg=dict\(type='Sigmoid'\),\s+norm_cfg", text)]
    assert se == ['seresnet.py']
    assert not [p for p, text in texts.items() if 'custom_keys' in text]
    for name in CONFIGS:
        bases = re.findall(r"'(\S+)\.py'", (ROOT / name).read_text())
        stem = Path(name).name
        if re.search(r'(^|_)seresnet', stem):
            assert not re.search(r'(/|_)apa-seres', ' '.join(bases)), name


def test_the_released_recipe_differs_in_named_settings_only():
    stem = ('configs/det/lvis/mask-rcnn_apa-seresnet{}_fpn_gol_sample1e-3-'
            'ms-2x_lvis-v1{}.py')
    for depth in (50, 101):
        ours, released = (load(stem.format(depth, s))
                          for s in ('', '_released'))
        ours.model.backbone.freeze_stem_act = False
        head = released.model.roi_head.bbox_head.init_cfg
        assert len(head) == 1
        ours.model.roi_head.bbox_head.init_cfg = head
        ours.optim_wrapper.constructor = 'DefaultOptimWrapperConstructor'
        ours.optim_wrapper.paramwise_cfg = None
        ours.train_cfg.val_interval = 1
        assert settings(ours) == settings(released)


@pytest.mark.parametrize('kind', ['faster', 'cascade'])
def test_released_classifiers_of_v3det(kind):
    stem = (f'configs/det/v3det/{kind}-rcnn_apa-seresnet50_fpn_wc_sample1e-3-'
            'ms-2x_v3det{}.py')
    ours, released = (
        settings(load(stem.format(s))) for s in ('', '_released'))
    model = build_on_meta(load(stem.format('_released')))
    forms = [m.form for m in model.modules()
             if isinstance(m, layers.WrappedCauchyLinear)]
    assert forms == ['released'] * (3 if kind == 'cascade' else 1)
    changed = {k.split('.')[-1] for k in ours.keys() | released.keys()
               if ours.get(k, '-') != released.get(k, '-')}
    assert changed == {'form', 'freeze_stem_act', 'constructor',
                       'paramwise_cfg'}


def test_lvis_test_settings_are_the_papers():
    for name in DET:
        if '_gol' not in name or 'lvis-v1' not in name:
            continue
        rcnn = load(name).model.test_cfg.rcnn
        # GOL's own threshold of masks on plain ResNets, AGLU's on ours.
        mask = 0.4 if 'seresnet' in name else 0.5
        assert (rcnn.score_thr, rcnn.nms.iou_threshold, rcnn.max_per_img,
                rcnn.mask_thr_binary) == (1e-4, 0.3, 300, mask)


# --- classification ---
@pytest.mark.parametrize('name', RECIPES)
def test_classifier_is_what_it_claims(name):
    cfg = load(name)
    model = check_model(cfg)
    got = (sum(p.numel() for p in model.parameters()),
           *count(model, AGLU, APA))
    assert got == sizes_of(name)
    if '_aglu_' in name and 'transformer' in name:
        assert not count(model, torch.nn.GELU)[0]
    check_classifiers_decay(name, cfg, model)


@pytest.mark.parametrize('name', DIGITS)
def test_digits_variants_have_their_modules(name):
    cfg = load(name)
    model = check_model(cfg)
    want = (19 if '_aglu_' in name else 0, 9 if 'apa-' in name else 0)
    assert count(model, AGLU, APA) == want
    check_classifiers_decay(name, cfg, model)


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
    model = build_on_meta(load(path)).backbone
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
def test_units_of_table_4f_and_without_attention(unit):
    assert kinds_of(f'resnet50_{unit}') == (set(), {UNITS[unit]})
    if unit != 'relu':
        assert kinds_of(f'apa-seresnet50_{unit}') == ({APA}, {UNITS[unit]})


def ranges_of(name):
    """Return the starting ranges of kappa of gates and units."""
    model = build_on_meta(load(name))
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


def check_classifiers_decay(name, cfg, model):
    decay = decays(cfg, model)
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
    epochs = 10 if '_crt_' in name else epochs
    if '_plain-' in name:  # where Table 14 starts
        epochs, decay = int(re.search(r'(\d+)e_', name)[1]), 5e-4
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
