"""APAResNet in the place of MMSegmentation's ResNets, and its own script."""
import copy
import json
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from support.configs import ROOT
from support.optional import NOT_THERE, has_mmseg
from support.resnet_defaults import MMSEGMENTATION, check_defaults

from apa_mm.checkpoint import Start, convert_file
from apa_mm.layers import AGLU

pytestmark = pytest.mark.skipif(
    not has_mmseg(), reason=f'mmsegmentation is {NOT_THERE}')
if has_mmseg():
    import mmseg
    import mmseg.models  # noqa: F401
    from mmseg.registry import MODELS
    CONFIGS = Path(mmseg.__file__).parent / '.mim' / 'configs'
else:
    CONFIGS = ROOT / 'no mmsegmentation'

RECIPE = ROOT / 'configs/seg/fcn_apa-seresnet50-d8_4xb2-40k_cityscapes-' \
    '512x1024.py'
SWAPS = {
    'ResNetV1c': dict(type='apa_mm.APAResNet', deep_stem=True),
    'ResNetV1d': dict(type='apa_mm.APAResNetD', deep_stem=True),
    'ResNet': dict(type='apa_mm.APAResNet'),
}
MODEL_FILES = sorted(
    p.name for p in (CONFIGS / '_base_/models').glob('*.py')
    if "type='ResNetV1c',\n" in p.read_text() and 'depth=50' in p.read_text())


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def swapped(cfg):
    """Return a backbone's settings with our type, nested or not."""
    if 'backbone_cfg' in cfg:  # ICNet
        return dict(cfg, backbone_cfg=swapped(cfg['backbone_cfg']))
    return dict(cfg, **SWAPS[cfg['type']])


def shapes(cfg, image):
    model = MODELS.build(copy.deepcopy(cfg))
    model.eval()  # theirs returns None
    with torch.no_grad():
        return [tuple(out.shape) for out in model(image)], model


def test_there_are_models():
    assert len(MODEL_FILES) == 22


def test_the_documented_defaults_are_the_ones_that_differ():
    check_defaults(mmseg.models.ResNet, MMSEGMENTATION)


@pytest.mark.parametrize('name', MODEL_FILES)
def test_shapes_are_theirs(name):
    cfg = Config.fromfile(CONFIGS / '_base_/models' / name).model.backbone
    image = torch.rand(1, 3, 32, 64)
    theirs, _ = shapes(cfg, image)
    ours, model = shapes(swapped(cfg), image)
    assert ours == theirs
    assert sum(isinstance(m, AGLU) for m in model.modules()) == 51


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
@pytest.mark.parametrize('kind', ['ResNetV1c', 'ResNetV1d', 'ResNet'])
def test_weights_convert_and_compute_the_same(kind, prefix, tmp_path):
    settings = dict(
        depth=18,
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        contract_dilation=True,
        multi_grid=(2, 1) if kind == 'ResNetV1d' else None)
    theirs = MODELS.build(dict(settings, type=kind))
    for module in theirs.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(module.running_mean, -.1, .1)
            torch.nn.init.uniform_(module.running_var, .5, 2)
            torch.nn.init.uniform_(module.weight, .5, 1)
    state = {prefix + k: v for k, v in theirs.state_dict().items()}
    if prefix:
        state['decode_head.conv_seg.weight'] = torch.rand(19, 16, 1, 1)
    torch.save(dict(meta={}, state_dict=state), tmp_path / 'theirs.pth')
    done = convert_file(
        str(tmp_path / 'theirs.pth'),
        str(tmp_path / 'ours.pth'),
        'mmdet-backbone',
        start=Start('plain'))  # refuses a network that lacks a tensor
    assert done.report.ok
    cfg = Config.fromstring(done.config, '.py').model.backbone
    cfg.pop('_delete_', None)
    cfg.update(settings, init_cfg=dict(
        type='Pretrained', checkpoint=str(tmp_path / 'ours.pth')))
    ours = MODELS.build(cfg)
    ours.init_weights()  # refuses what does not fit
    image = torch.rand(1, 3, 32, 64)
    theirs.eval(), ours.eval()
    with torch.no_grad():
        for a, b in zip(ours(image), theirs(image), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def recipe(**changes):
    cfg = Config.fromfile(RECIPE)
    cfg.merge_from_dict({
        'optim_wrapper.paramwise_cfg': dict(
            custom_keys=dict(head=dict(lr_mult=10.))),
        'norm_cfg.type': 'BN',
        'model.data_preprocessor.size': (32, 32),
        'model.backbone.depth': 18,
        'model.backbone.norm_cfg.type': 'BN',
        **{f'model.{head}_head.{key}': value
           for head, width in (('decode', 512), ('auxiliary', 256))
           for key, value in (('in_channels', width), ('channels', 8),
                              ('norm_cfg.type', 'BN'))},
        **changes
    })
    return cfg


def test_heads_learn_faster_and_units_do_not_decay():
    cfg = recipe()
    model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    place = {id(p): group for group in wrapper.optimizer.param_groups
             for p in group['params']}
    lr = cfg.optim_wrapper.optimizer.lr
    units = 0
    for name, parameter in model.named_parameters():
        group = place[id(parameter)]
        times = 10 if '_head.' in name else 1
        assert group['lr'] == pytest.approx(lr * times), name
        if name.endswith(('kappa', 'lambd')):
            assert group['weight_decay'] == 0
            units += 1
        elif times == 1 and name.endswith('conv1.weight'):
            assert group['weight_decay'] == 5e-4
    assert units == 2 * (19 + 8)


def write_images(folder):
    rng = np.random.default_rng(0)
    for i in range(2):
        for name, shape in ((f'{i}_leftImg8bit.png', (32, 32, 3)),
                            (f'{i}_gtFine_labelTrainIds.png', (32, 32))):
            pixels = rng.integers(0, 19, shape, 'uint8')
            cv2.imwrite(str(folder / name), pixels)


def miniature(folder, max_iters):
    """Write the recipe with 2 images in the place of Cityscapes."""
    steps = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
             dict(type='PackSegInputs')]
    cfg = recipe(**{
        'train_cfg.max_iters': max_iters, 'train_cfg.val_interval': max_iters,
        'default_hooks.checkpoint.interval': 5,
        'default_hooks.logger.interval': 1
    })
    for loader in (cfg.train_dataloader, cfg.val_dataloader,
                   cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.update(
            data_root=str(folder), pipeline=steps,
            data_prefix=dict(img_path='', seg_map_path=''))
    cfg.work_dir = str(folder / 'work')
    cfg.dump(folder / 'tiny.py')
    return str(folder / 'tiny.py')


def test_their_train_script_trains_resumes_and_evaluates(
        tmp_path, monkeypatch):
    write_images(tmp_path)
    script = str(CONFIGS.parent / 'tools/train.py')
    for max_iters, more in ((5, ()), (10, ('--resume', ))):
        monkeypatch.setattr(
            sys, 'argv', [script, miniature(tmp_path, max_iters), *more])
        runpy.run_path(script, run_name='__main__')
    work = tmp_path / 'work'
    lines = [json.loads(line)
             for path in sorted(work.glob('*/vis_data/scalars.json'))
             for line in path.read_text().splitlines()]
    trained = [line['iter'] for line in lines if 'loss' in line]
    assert trained == list(range(1, 11))
    assert all(np.isfinite(line['loss']) for line in lines if 'loss' in line)
    assert [0 <= line['mIoU'] <= 100 for line in lines
            if 'mIoU' in line] == [True, True]
    assert (work / 'iter_10.pth').is_file()
