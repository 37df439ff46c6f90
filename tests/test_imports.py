"""Which modules may be imported with which libraries absent."""
import subprocess
import sys
from pathlib import Path

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


def run(blocked, names, expression):
    code = BLOCK.format(
        blocked=blocked, modules=names, expression=expression)
    return subprocess.run([sys.executable, '-c', code],
                          capture_output=True,
                          text=True)


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


def test_mmcv_lite_is_enough_for_the_backbone():
    result = run(['mmdet', 'mmpretrain', 'mmcv._ext', 'mmcv.ops'],
                 modules(skip=('det', 'cls')),
                 '(imports.HAS_MMCV_OPS, imports.HAS_MMDET)')
    assert result.stdout.strip() == '(False, False)', result.stderr


def test_without_triton_only_its_kernels_are_missing():
    names = [n for n in modules(skip=('det', 'cls'))
             if not n.endswith('apa_triton')]
    result = run(['triton'], names,
                 "(imports.HAS_TRITON, sys.modules['apa_mm.kernels.activation'"
                 "]._triton_runs('cuda'))")
    assert result.stdout.strip() == "(False, False)", result.stderr


def test_mmdet_without_ops_counts_as_absent():
    result = run(['mmcv._ext', 'mmcv.ops'], ['apa_mm.det'],
                 'imports.HAS_MMDET')
    assert result.stdout.split()[-1] == 'False', result.stderr
    assert 'mmcv has no compiled ops' in result.stdout + result.stderr


def test_only_det_and_cls_name_the_libraries():
    for path in ROOT.rglob('*.py'):
        top = path.relative_to(ROOT).parts[0]
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (['import'], ['from']) and len(words) > 1:
                library = words[1].split('.')[0]
                assert library != 'mmdet' or top == 'det', path
                assert library != 'mmpretrain' or top == 'cls', path
