"""Types resolve as ``apa_mm.X`` from every library in a fresh process."""
import subprocess
import sys

import pytest

BUILD = """
from {library}.registry import MODELS
model = MODELS.build(dict(type='apa_mm.APAResNet', depth=18))
import sys
assert type(model).__module__ == 'apa_mm.backbones.resnet', type(model)
layer = MODELS.build(dict(type='apa_mm.AGLU'))
print('built', type(layer).__name__)
"""
INHERIT = """
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmdet.registry import MODELS
{custom_imports}
init_default_scope('mmdet')
cfg = Config.fromfile(r'{path}')
model = MODELS.build(cfg.model)
print('built', type(model.backbone).__name__)
"""
CONFIG = """
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
model = dict(backbone=dict(type='apa_mm.APAResNet', init_cfg=None))
{line}
"""


def run(code):
    return subprocess.run([sys.executable, '-c', code],
                          capture_output=True,
                          text=True)


@pytest.mark.parametrize('library', ['mmengine', 'mmdet', 'mmpretrain'])
def test_types_resolve_without_importing_us(library):
    result = run(BUILD.format(library=library))
    assert 'built AGLU' in result.stdout, result.stderr


@pytest.mark.parametrize('line', [
    '',
    "custom_imports = dict(imports=['apa_mm'])",
])
def test_a_child_of_an_mmdet_config_builds(tmp_path, line):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(line=line))
    result = run(INHERIT.format(path=path, custom_imports=''))
    assert 'built APAResNet' in result.stdout, result.stderr


def test_a_misspelt_type_is_named():
    result = run(
        BUILD.format(library='mmdet').replace('apa_mm.APAResNet',
                                              'apa_mm.APARestNet'))
    assert result.returncode == 1
    assert 'apa_mm.APARestNet is not in the' in result.stderr
