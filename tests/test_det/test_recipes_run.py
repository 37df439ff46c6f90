"""Every detection recipe trains, saves, tests and evaluates.

On miniatures with the true number of classes, on the CPU, at 96 pixels and
with narrow layers. What is changed for that is in ``options``; everything else
is the recipe's own: ``tests/test_configs.py`` builds every config in full.
The first of every ``kind`` is also resumed.
"""
import shutil
from pathlib import Path

import pytest
import torch
from support.configs import box_heads, narrow
from support.detection_sets import MAKERS, SIDE
from mmengine.config import Config
from mmengine.registry import HOOKS
from support.training_probe import TrainingProbe

from apa_mm.engine import launch

ROOT = Path(__file__).parents[2]
#: As the R50 and the Faster R-CNN of the same name, which are run.
COVERED = ('101_fpn_gol_sample1e-3-ms-2x_lvis-v1_released.py',
           '2x_v3det_released.py')
CONFIGS = sorted(
    p.relative_to(ROOT).as_posix()
    for p in (ROOT / 'configs/det').rglob('*.py')
    if not p.name.endswith(COVERED) or 'faster' in p.name)
SCALE = (SIDE, SIDE)
#: Kinds that have been resumed.
RESUMED = set()


@HOOKS.register_module(force=True)
class Probe(TrainingProbe):
    """The notes of these tests."""


def resize_options(dataset, prefix):
    """Yield overrides that shrink every resize of a dataset's pipeline."""
    if 'dataset' in dataset:
        yield from resize_options(dataset['dataset'], f'{prefix}.dataset')
    else:
        # It would collect garbage for half a second.
        yield f'{prefix}.serialize_data', False
    for i, step in enumerate(dataset.get('pipeline', [])):
        if step['type'] == 'Resize':
            yield f'{prefix}.pipeline.{i}.scale', SCALE
        elif step['type'] == 'RandomChoiceResize':
            yield f'{prefix}.pipeline.{i}.scales', [SCALE]


def kind(cfg):
    """Return what could make one recipe resume and another not."""
    _, head = next(box_heads(cfg))
    return (cfg.model.type, head.loss_cls.type, cfg.train_cfg.type,
            cfg.optim_wrapper.get('constructor'),
            tuple(hook.type for hook in cfg.custom_hooks))


def options(cfg):
    result = {
        # No weights can be downloaded here; without them the norms have to
        # learn their statistics.
        'model.backbone.init_cfg': None,
        'model.backbone.norm_eval': False,
        'model.train_cfg.rpn_proposal.max_per_img': 50,
        'model.test_cfg.rpn.max_per_img': 20,
        'param_scheduler': [],
        'randomness': dict(seed=0),
        'optim_wrapper.optimizer.lr': 1e-3,
        'default_hooks.checkpoint.save_last': True,
        'train_dataloader.batch_size': 2,
    }
    # Of all that is computed here, the heads' work for hundreds of boxes
    # takes longest, and then what is done with every weight: drawing it,
    # stepping, writing and reading it.
    stages = cfg.model.train_cfg.rcnn
    for name in ('', ) if isinstance(stages, dict) else map(
            '.{}'.format, range(len(stages))):
        result[f'model.train_cfg.rcnn{name}.sampler.num'] = 32
    result.update(narrow(cfg))
    # The deeper ones have more of the same blocks.
    result['model.backbone.depth'] = 50
    result['model.test_cfg.rcnn.max_per_img'] = 20
    # The test takes the same.
    assert cfg.val_dataloader == cfg.test_dataloader
    assert cfg.val_evaluator == cfg.test_evaluator
    result.update(val_cfg=None, val_dataloader=None, val_evaluator=None)
    for split in ('train', 'test'):
        loader = f'{split}_dataloader'
        result[f'{loader}.num_workers'] = 0
        result[f'{loader}.persistent_workers'] = False
        result.update(resize_options(cfg[loader].dataset, f'{loader}.dataset'))
    # The miniature shows few of the classes, which is refused by default.
    hooks = [
        dict(hook, allow_empty=True) if 'Frequency' in hook.type else hook
        for hook in cfg.custom_hooks
    ]
    result['custom_hooks'] = [*hooks, dict(type='Probe')]
    if 'mask_head' in cfg.model.roi_head and cfg.model.roi_head.mask_head.get(
            'upsample_cfg', {}).get('type') == 'carafe':
        # CARAFE has no CPU kernel in mmcv.
        result['model.roi_head.mask_head.upsample_cfg'] = dict(
            _delete_=True, type='deconv', scale_factor=2)
    return result


def length(cfg, steps):
    """Return overrides that train ``steps`` times two iterations."""
    if cfg.train_cfg.get('type') == 'IterBasedTrainLoop':
        return {
            'train_cfg.max_iters': steps + 1,
            'default_hooks.checkpoint.interval': 2,
        }
    return {
        'train_cfg.max_epochs': steps,
        'default_hooks.checkpoint.interval': 1,
    }


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('recipes')
    for make in MAKERS.values():
        make(root / 'data')
    return root


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_recipe(name, data, monkeypatch):
    monkeypatch.chdir(data)
    # mmengine waits for two seconds where a new epoch begins.
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda _: None)
    path = str(ROOT / name)
    cfg = Config.fromfile(path)
    shared = options(cfg)
    work_dir = data / Path(name).stem
    try:
        model = launch.train(
            path,
            work_dir=str(work_dir),
            cfg_options={
                **shared,
                **length(cfg, 1)
            })
        check_training(model, losses=2)

        if kind(cfg) not in RESUMED:
            RESUMED.add(kind(cfg))
            launch.train(
                path,
                work_dir=str(work_dir),
                resume='auto',
                cfg_options={
                    **shared,
                    **length(cfg, 2)
                })
            # Iterations of the second part.
            assert len(Probe.losses) in (1, 2)

        checkpoint = (work_dir / 'last_checkpoint').read_text()
        metrics = launch.test(
            path, checkpoint, work_dir=str(work_dir), cfg_options=shared)
        keys = {
            'lvis': {'lvis/bbox_AP', 'lvis/segm_AP', 'lvis/segm_APr'},
            'coco': {'coco/bbox_mAP', 'coco/segm_mAP'},
            'v3det': {'coco/bbox_mAP'}
        }[Path(name).parent.name]
        assert keys <= set(metrics)
        assert all(-1 <= metrics[k] <= 1 for k in keys)
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)


def check_training(model, losses):
    assert len(Probe.losses) == losses
    assert all(torch.isfinite(torch.tensor(v)) for v in Probe.losses)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable - Probe.seen == set()
    moved = []
    for name, parameter in model.named_parameters():
        ours = name.split('.')[-1] in ('kappa', 'lambd')
        if ours and parameter.requires_grad:
            moved.append(not torch.equal(parameter, Probe.before[name]))
    # Two small steps may be less than float32 resolves for one or another.
    assert not moved or (len(moved) > 50 and sum(moved) > 0.9 * len(moved))
