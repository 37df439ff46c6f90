"""APAResNet in the place of MMPose's ResNets, in all of its R50 models."""
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from support.optional import NOT_THERE, offer

from apa_mm.layers import AGLU

HAS_MMPOSE = offer('mmpose', 'mmpose*', 'json_tricks*', 'munkres*')
pytestmark = pytest.mark.skipif(
    not HAS_MMPOSE, reason=f'mmpose is {NOT_THERE}')


def models():
    """Return a model with a ResNet-50 for each set of parts, by name."""
    if not HAS_MMPOSE:
        return {}
    import mmpose
    found = {}
    for path in sorted((Path(mmpose.__file__).parent / '.mim/configs').rglob(
            '*.py')):
        if '3d_keypoint' in str(path):
            continue
        text = path.read_text()
        if "type='ResNet'" in text and re.search(r'depth=50\b', text):
            model = Config.fromfile(path).model
            kinds = [model.type, *(
                part['type'] for part in (
                    model.get('neck'), model.get('head')) if part)]
            settings = {k: v for k, v in model.backbone.items()
                        if k not in ('type', 'depth', 'init_cfg')}
            found.setdefault(f'{"-".join(kinds)} {settings}', (path, model))
    return found


@pytest.fixture(autouse=True)
def pycocotools(monkeypatch):
    """Stand in for xtcocotools, whose wheels do not import beside numpy 2."""
    for part in ('', '.coco', '.cocoeval', '.mask'):
        monkeypatch.setitem(sys.modules, f'xtcocotools{part}',
                            import_module(f'pycocotools{part}'))


MODELS_BY_KIND = models()


def test_there_are_models():
    assert len(MODELS_BY_KIND) >= 5


@pytest.mark.parametrize('kind', MODELS_BY_KIND)
def test_outputs_have_their_shapes(kind):
    from mmpose.registry import MODELS
    from mmpose.utils import register_all_modules
    register_all_modules(init_default_scope=False)
    path, cfg = MODELS_BY_KIND[kind]
    cfg.backbone.pop('init_cfg', None)
    size = Config.fromfile(path).codec
    size = (size[-1] if isinstance(size, list) else size)['input_size']
    shapes = []
    with DefaultScope.overwrite_default_scope('mmpose'), \
            torch.device('meta'), torch.no_grad():
        image = torch.rand(1, 3, *size[::-1][-2:])
        for kind in ('ResNet', 'apa_mm.APAResNet'):
            cfg.backbone.type = kind
            model = MODELS.build(cfg).eval()
            out = model(image, None, mode='tensor')
            out = out if isinstance(out, (list, tuple)) else [out]
            shapes.append([tuple(each.shape) for each in out])
    assert shapes[0] == shapes[1]
    assert sum(isinstance(m, AGLU) for m in model.modules()) == 49
