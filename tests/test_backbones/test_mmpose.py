"""APAResNet in the place of MMPose's ResNets, in every kind of its models."""
import ast
import sys
from collections import Counter
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from support.optional import NOT_THERE, offer
from support.resnet_defaults import MMPRETRAIN_OR_MMPOSE, check_defaults

from apa_mm.layers import AGLU

HAS_MMPOSE = offer('mmpose', 'mmpose*', 'json_tricks*', 'munkres*')
pytestmark = pytest.mark.skipif(
    not HAS_MMPOSE, reason=f'mmpose is {NOT_THERE}')
#: MMPose's backbone -> what takes its place, and its AGLU units at depth 50.
SWAPS = {
    'ResNet': (dict(type='apa_mm.APAResNet'), 49),
    'ResNeXt': (dict(type='apa_mm.APAResNet', groups=32), 49),
    'ResNetV1d': (dict(type='apa_mm.APAResNetD'), 51),
    'SEResNet': (dict(type='apa_mm.APAResNet'), 49),
}


def parts(path):
    """Return the arguments of a config's ``model`` as code, not run.

    The configs of a kind are many, and each takes long to read as a config.
    """
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == 'model':
            return {each.arg: each.value for each in node.value.keywords}
    return {}


def entry(call, name):
    """Return one argument of ``dict(...)`` as a word."""
    found = [each.value for each in call.keywords if each.arg == name]
    return ast.unparse(found[0]).strip("'") if found else None


def models():
    """Return one config of each distinct ResNet-50, neck and head."""
    if not HAS_MMPOSE:
        return {}
    configs = Path(find_spec('mmpose').origin).parent / '.mim/configs'
    found = {}
    for path in sorted(configs.rglob('*.py')):
        model = parts(path)
        backbone = model.get('backbone')
        if not backbone or entry(backbone, 'type') not in SWAPS:
            continue
        if entry(backbone, 'depth') == '50':
            settings = {each.arg: ast.unparse(each.value)
                        for each in backbone.keywords
                        if each.arg not in ('type', 'depth', 'init_cfg')}
            kinds = [entry(model[part], 'type')
                     for part in ('backbone', 'neck', 'head') if part in model]
            found.setdefault(f'{"-".join(kinds)}{settings or ""}', path)
    return found


@pytest.fixture(autouse=True)
def pycocotools(monkeypatch):
    """Stand in for xtcocotools, whose wheels do not import beside numpy 2."""
    for part in ('', '.coco', '.cocoeval', '.mask'):
        monkeypatch.setitem(sys.modules, f'xtcocotools{part}',
                            import_module(f'pycocotools{part}'))


PATHS = models()


def read(path, folder):
    """Read a config; its base lies elsewhere in the wheel than it says."""
    text = path.read_text()
    if 'mmpose.configs._base_' in text:
        base = path.parents[path.parts[::-1].index('configs') - 1]
        (folder / 'default_runtime.py').write_text(
            (base / '_base_/default_runtime.py').read_text())
        path = folder / path.name
        path.write_text(text.replace('mmpose.configs._base_', ''))
    return Config.fromfile(path)


def test_there_are_models():
    assert {name.split('-')[0] for name in PATHS} == set(SWAPS)
    assert len(PATHS) == 11


def test_the_documented_defaults_are_the_ones_that_differ():
    from mmpose.models import ResNet
    check_defaults(ResNet, MMPRETRAIN_OR_MMPOSE)


@pytest.mark.parametrize('name', PATHS, ids=lambda n: n.split('{')[0])
def test_outputs_and_3x3_weights_have_their_shapes(name, tmp_path):
    from mmpose.registry import MODELS
    from mmpose.utils import register_all_modules
    register_all_modules(init_default_scope=False)
    config = read(PATHS[name], tmp_path)
    width, height = config.codec.get('input_size', (256, 256))
    cfg = config.model
    cfg.backbone.pop('init_cfg')
    ours, units = SWAPS[name.split('-')[0]]
    found = []
    with DefaultScope.overwrite_default_scope('mmpose'), \
            torch.device('meta'), torch.no_grad():
        for change in ({}, ours):
            cfg.backbone.update(change)
            model = MODELS.build(cfg).eval()
            image = torch.rand(1, 3, height, width)
            # EDPose's head runs with annotations only.
            out = (model.extract_feat(image) if 'EDPose' in name else
                   model(image, None, mode='tensor'))
            out = out if isinstance(out, (list, tuple)) else [out]
            found.append(([tuple(each.shape) for each in out],
                          Counter(p.shape for p in model.parameters()
                                  if p.shape[2:] == (3, 3))))
    assert found[0] == found[1]
    assert sum(isinstance(m, AGLU) for m in model.modules()) == units
