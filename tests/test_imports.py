"""Which modules may be imported with which libraries absent."""
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import apa_mm
from apa_mm.utils.imports import HAS_TRITON

ROOT = Path(apa_mm.__file__).parent
BLOCK = """
import importlib, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {blocked} or name in {blocked}:
            raise ModuleNotFoundError(f'No module named {{name!r}}')

sys.meta_path.insert(0, Block())
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda n, p=None: (
    None if n.split('.')[0] in {blocked} or n in {blocked}
    else find_spec(n, p))
for name in {modules}:
    importlib.import_module(name)
from apa_mm.utils import imports
print({expression})
"""


def modules(skip):
    names = []
    for path in sorted(ROOT.rglob('*.py')):
        parts = ('apa_mm', ) + path.relative_to(ROOT).with_suffix('').parts
        if parts[-1] == '__init__':
            parts = parts[:-1]
        if parts[-1] == 'apa_triton' and not HAS_TRITON:
            continue
        if len(parts) < 2 or parts[1] not in skip:
            names.append('.'.join(parts))
    return names


def run(blocked, names, expression, path=()):
    code = BLOCK.format(
        blocked=blocked, modules=names, expression=expression)
    return python(code, path)


def python(code, path=()):
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(
        map(str, (*path, ROOT.parent, os.environ.get('PYTHONPATH', '')))))
    return subprocess.run([sys.executable, '-c', code],
                          capture_output=True,
                          text=True,
                          env=env)


@pytest.fixture
def mmcv_lite(tmp_path):
    """A folder for sys.path with mmcv as it is without compiled operators."""
    installed = Path(find_spec('mmcv').origin).parent
    (tmp_path / 'mmcv').mkdir()
    for entry in installed.iterdir():
        if entry.name != 'ops' and not entry.name.startswith('_ext'):
            (tmp_path / 'mmcv' / entry.name).symlink_to(entry)
    return tmp_path


def test_everything_but_det_and_cls_needs_neither_library():
    names = modules(skip=('det', 'cls'))
    assert len(names) > 15
    result = run(['mmdet', 'mmpretrain'], names,
                 '(imports.HAS_MMDET, imports.HAS_MMPRETRAIN)')
    assert result.stdout.strip() == '(False, False)', result.stderr


def test_the_registries_work_without_mmdet_and_mmpretrain():
    result = run(['mmdet', 'mmpretrain'], ['apa_mm.registry'],
                 "sys.modules['apa_mm.registry'].MODELS.build("
                 "dict(type='apa_mm.APAResNet', depth=18)).depth")
    assert result.stdout.strip() == '18', result.stderr


def test_mmcv_lite_is_enough_for_the_backbone(mmcv_lite):
    result = run(['mmdet', 'mmpretrain'], modules(skip=('det', 'cls')),
                 '(imports.HAS_MMCV_OPS, imports.HAS_MMDET)', [mmcv_lite])
    assert result.stdout.strip() == '(False, False)', result.stderr


def test_without_triton_only_its_kernels_are_missing():
    names = [n for n in modules(skip=('det', 'cls'))
             if not n.endswith('apa_triton')]
    result = run(['triton'], names,
                 "(imports.HAS_TRITON, sys.modules['apa_mm.kernels.activation'"
                 "]._triton_runs('cuda'))")
    assert result.stdout.strip() == "(False, False)", result.stderr


def test_mmdet_without_ops_counts_as_absent(mmcv_lite):
    result = run([], ['apa_mm.det'], 'imports.HAS_MMDET', [mmcv_lite])
    assert result.stdout.split()[-1] == 'False', result.stderr
    assert 'mmcv has no compiled ops' in result.stdout + result.stderr


ALONE = """
import sys, time, json
import torch
before = set(sys.modules)
start = time.perf_counter()
from apa_mm.functional import aglu
seconds = time.perf_counter() - start
new = sorted({{name.split('.')[0] for name in set(sys.modules) - before}})
rooms = sorted({{name.split('.')[1] for name in sys.modules
                if name.startswith('apa_mm.')}})
{more}
print(json.dumps([new, rooms, seconds]))
"""


def alone(more=''):
    result = python(ALONE.format(more=more))
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_functions_need_torch_alone():
    new, rooms, _ = alone()
    assert set(new) - set(sys.stdlib_module_names) == {'apa_mm'}
    assert rooms == ['functional', 'kernels', 'utils', 'version']


def test_functions_import_in_a_third_of_a_second():
    assert min(alone()[2] for _ in range(3)) < 0.3


def test_looking_for_libraries_imports_none():
    new, *_ = alone('from apa_mm.utils import imports\n'
                    'new = sorted({n.split(".")[0] for n in sys.modules})')
    assert not {'mmcv', 'cv2', 'mmengine', 'mmdet', 'mmpretrain',
                'triton', 'torchvision'} & set(new)


def test_the_walk_of_aglu_is_short():
    """Three files of Python; the fourth is ``csrc/apa_cpu.cpp``."""
    more = """
from apa_mm.kernels import native
native.library()
x = torch.ones(3, requires_grad=True)
files = set()
sys.setprofile(lambda frame, event, arg: files.add(frame.f_code.co_filename))
aglu(x, kappa=1., lambd=1.)
sys.setprofile(None)
new = sorted(f for f in files if f.startswith(sys.modules['apa_mm'].__path__[0]))
"""
    files = [Path(f).name for f in alone(more)[0]]
    assert len(files) <= 3, files


def test_only_det_and_cls_name_the_libraries():
    for path in ROOT.rglob('*.py'):
        top = path.relative_to(ROOT).parts[0]
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (['import'], ['from']) and len(words) > 1:
                library = words[1].split('.')[0]
                assert library != 'mmdet' or top == 'det', path
                assert library != 'mmpretrain' or top == 'cls', path
