"""Sources that clash compile as one file; nothing of mmcv is built here."""
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / 'tools'
PARTS = {
    'a.cpp': '''#define twice(x) ((x) + (x))
struct Point { int x; };
template <typename T>
T add(T a, T b) { return twice(a) + b; }
int of_a() { Point p{1}; return add(p.x, 2); }
''',
    'b.cpp': '''// struct Other { int z; };
struct Point { float y; };
template <typename T>
T add(const T& a, const T& b) {
  return a - b;
}
int twice(int x) { return int(add(Point{1.5}.y, 2.5f)) + x; }
''',
    'c.cpp': 'int only_here(int x) { return x; }\n',
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import build_mmcv
    for folder in build_mmcv.FOLDERS:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name, text in PARTS.items():
            (tmp_path / folder / name).write_text(text)
    (tmp_path / 'pytorch_cpp_helper.hpp').write_text('#pragma once\n')
    return tmp_path


def compiles(root, path):
    return subprocess.run(
        ['g++', '-std=c++17', '-fsyntax-only', f'-I{root}', str(path)],
        capture_output=True, text=True)


@pytest.mark.skipif(not shutil.which('g++'), reason='no C++ compiler')
def test_clashing_sources_become_one_that_compiles(root):
    import build_mmcv
    folder = root / build_mmcv.FOLDERS[0]
    plain = root / 'plain.cpp'
    plain.write_text(''.join(f'#include "{folder / n}"\n' for n in PARTS))
    assert 'redefinition' in compiles(root, plain).stderr
    build_mmcv.unite(root)
    assert [p.name for p in folder.glob('*.cpp')] == ['all.cpp']
    result = compiles(root, folder / 'all.cpp')
    assert result.returncode == 0, result.stderr
    # A name of one file alone stays what it is: others may ask for it.
    assert 'only_here' not in (folder / 'all.cpp').read_text()


def test_definitions_leave_out_comments(root):
    import build_mmcv
    assert build_mmcv.definitions(PARTS['b.cpp']) == (
        set(), {'Point', 'add', 'twice'})


def test_sources_that_cannot_be_united_are_built_plainly(
        root, monkeypatch, tmp_path):
    import build_mmcv
    calls = []

    def run(verb, *words):
        if verb == 'download':
            folder = tmp_path / 'mmcv-1'
            folder.mkdir()
            target = Path(words[words.index('-d') + 1])
            target.mkdir(parents=True)
            shutil.make_archive(str(target / 'mmcv-1'), 'gztar', tmp_path,
                                'mmcv-1')
        else:
            calls.append(Path(words[-1]).parent.name)

    monkeypatch.setattr(build_mmcv, 'run', run)
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    monkeypatch.setattr('signal.signal', lambda *_: None)
    monkeypatch.setattr(sys, 'argv', ['x', 'mmcv==1', str(tmp_path)])
    build_mmcv.main()
    assert calls == ['plain']


@pytest.mark.parametrize('version, standard', [
    ('2.9.1+cu128', 17), ('2.13.0', 17), ('2.14.1', 20), ('3.0.0', 20)])
def test_new_torch_needs_a_newer_standard(root, version, standard):
    import build_mmcv
    setup = root / 'setup.py'
    setup.write_text("args = ['-Wall', '-std=c++17']\n")
    build_mmcv.raise_standard(setup, version)
    assert setup.read_text() == f"args = ['-Wall', '-std=c++{standard}']\n"
