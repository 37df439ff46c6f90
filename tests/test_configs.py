"""Every config parses, builds on the CPU and holds the modules it claims."""
import inspect
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

from apa_mm.layers import AGLU, APA

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(
    p.relative_to(ROOT).as_posix() for p in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in p.parts)
DET = [c for c in CONFIGS if c.startswith(('configs/det/', 'configs/demo/'))]
#: depth -> AGLU units, APA gates of an APA* ResNet.
EXPECTED = {18: (17, 8), 50: (49, 16), 101: (100, 33), 152: (151, 50)}
#: Top-level helper variables that configs of the parent libraries define.
HELPERS = {
    'dataset_type', 'data_root', 'backend_args', 'train_pipeline',
    'test_pipeline', 'max_iter', 'max_iters', 'max_epochs', 'num_classes',
    'auto_scale_lr', 'default_scope', 'metainfo', 'image_scale', 'width',
    'vis_backends'
}


def load(name):
    cfg = Config.fromfile(ROOT / name)
    init_default_scope(cfg.default_scope)
    return cfg


def build(cfg):
    return MODELS.build(cfg.model)


def test_there_are_configs():
    assert len(DET) >= 20


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
