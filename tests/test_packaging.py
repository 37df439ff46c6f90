"""What pip installs with apa_mm, and what its wheel carries.

In throw-away environments, from wheels written here; no index is asked.
"""
import ast
import re
import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest
from conftest import CORE, CORE_RECIPES

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / 'configs' / CORE_RECIPES[0]
#: What each stack calls the distributions that hold these packages.
STACKS = {
    'official': dict(mmengine='mmengine', mmcv='mmcv', mmdet='mmdet',
                     mmpretrain='mmpretrain'),
    'onedl': dict(mmengine='onedl-mmengine', mmcv='onedl-mmcv',
                  mmdet='onedl-mmdetection', mmpretrain='onedl-mmpretrain'),
}
VERSIONS = {
    'official': dict(mmengine='0.10.7', mmcv='2.1.0', mmdet='3.3.0',
                     mmpretrain='1.2.0'),
    'onedl': dict(mmengine='0.10.12', mmcv='2.3.6', mmdet='3.5.1',
                  mmpretrain='1.3.6'),
}
#: Newest first: pip would take these if it were asked for them.
OTHERS = dict(torch='2.9.1', torchvision='0.24.1', numpy='2.4.6',
              setuptools='81.0.0', safetensors='0.8.0', hotcoco='1.3.0',
              msgspec='0.22.0')


def write_wheel(folder, distribution, version, package):
    """Write a wheel of one file that says where it came from."""
    name = distribution.replace('-', '_')
    info = f'{name}-{version}.dist-info'
    files = {
        f'{package}/__init__.py': f'SOURCE = {distribution!r}\n',
        f'{info}/METADATA': f'Metadata-Version: 2.1\nName: {distribution}\n'
                            f'Version: {version}\n',
        f'{info}/WHEEL': 'Wheel-Version: 1.0\nGenerator: test\n'
                         'Root-Is-Purelib: true\nTag: py3-none-any\n',
    }
    record = ''.join(f'{path},,\n' for path in [*files, f'{info}/RECORD'])
    with zipfile.ZipFile(
            folder / f'{name}-{version}-py3-none-any.whl', 'w') as wheel:
        for path, text in {**files, f'{info}/RECORD': record}.items():
            wheel.writestr(path, text)


def pip(*words, python=sys.executable):
    result = subprocess.run(
        [sys.executable, '-m', 'pip', '--python', str(python),
         '--disable-pip-version-check', '--no-input', *map(str, words)],
        capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """Build the wheel from a copy of what git would hand out."""
    folder = tmp_path_factory.mktemp('wheel')
    for name in ('apa_mm', 'configs', 'tools', 'requirements', 'setup.py',
                 'pyproject.toml', 'README.md', 'model-index.yml'):
        (folder / name).symlink_to(ROOT / name)
    subprocess.run(
        [sys.executable, 'setup.py', '-q', 'bdist_wheel', '-d', 'out'],
        cwd=folder, check=True, capture_output=True)
    built, = (folder / 'out').glob('*.whl')
    return built


@pytest.fixture(scope='module')
def shelf(tmp_path_factory):
    """Return a folder of stub wheels, all that pip may choose from."""
    folder = tmp_path_factory.mktemp('shelf')
    for stack, names in STACKS.items():
        for package, distribution in names.items():
            write_wheel(folder, distribution, VERSIONS[stack][package],
                        package)
    for name, version in OTHERS.items():
        write_wheel(folder, name, version, name)
    return folder


@pytest.fixture
def environment(tmp_path, shelf):
    """Make an environment and return how to install there."""
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', tmp_path],
                   check=True)
    python = tmp_path / 'bin' / 'python'

    def install(*what):
        pip('install', '--no-index', '--find-links', shelf, *what,
            python=python)
        return {
            d.metadata['Name']: d.version
            for d in distributions(path=[str(install.site)])
        }

    install.python = python
    install.site, = tmp_path.glob('lib/python*/site-packages')
    return install


@pytest.mark.parametrize('stack', STACKS)
def test_an_installed_stack_is_left_alone(environment, wheel, stack):
    before = environment(*STACKS[stack].values())
    after = environment(f'{wheel}[det,cls]')
    assert before.items() <= after.items()
    others = next(s for s in STACKS if s != stack)
    assert not set(STACKS[others].values()) & set(after)
    assert {'apa_mm', *OTHERS} <= set(after)
    pip('uninstall', '-y', 'apa_mm', python=environment.python)
    for package, distribution in STACKS[stack].items():
        text = (environment.site / package / '__init__.py').read_text()
        assert text == f'SOURCE = {distribution!r}\n'


@pytest.mark.parametrize('stack', STACKS)
def test_an_empty_environment_gets_one_stack(environment, wheel, stack):
    after = environment(f'{wheel}[{stack}]')
    others = next(s for s in STACKS if s != stack)
    assert set(STACKS[stack].values()) <= set(after)
    assert not set(STACKS[others].values()) & set(after)


def test_the_wheel_carries_what_mim_looks_for(wheel):
    """Every recipe and the index, but nothing of the demo."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        index = archive.read('apa_mm/.mim/model-index.yml').decode()
    carried = {n for n in names if n.startswith('apa_mm/.mim/configs/')}
    assert carried == {
        f'apa_mm/.mim/{p.relative_to(ROOT)}'
        for p in (ROOT / 'configs').rglob('*')
        if p.is_file() and 'demo' not in p.parts and p.suffix != '.pyc'
    }
    imported = re.findall(r'- (configs/\S+)', index)
    assert imported
    assert {f'apa_mm/.mim/{path}' for path in imported} <= carried


#: Tools of the README that start in the checkout alone.
OF_THE_CHECKOUT = {'demo.sh', 'make_digits_lvis.py', 'demo_report.py',
                   'test.sh', 'setup_env.sh', 'build_mmcv.py', 'benchmark.py'}


def test_the_wheel_carries_the_tools_of_the_readme(wheel, tmp_path):
    place = 'apa_mm/.mim/tools/'
    with zipfile.ZipFile(wheel) as archive:
        tools = {n.removeprefix(place) for n in archive.namelist()
                 if n.startswith(place)}
        archive.extractall(tmp_path)
    table = re.findall(r'^\|.+\|$', (ROOT / 'tools/README.md').read_text(),
                       re.MULTILINE)
    named = set(re.findall(r'\w+\.(?:py|sh)\b', ''.join(
        row for row in table if row.startswith('| `'))))
    assert {'train.py', 'convert_checkpoint.py'} < named
    assert tools == named - OF_THE_CHECKOUT
    beside = {path.stem for path in (ROOT / 'tools').iterdir()}
    for path in (tmp_path / place).glob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not beside & {each.name for each in node.names}, path
            if isinstance(node, ast.ImportFrom):
                assert node.module.split('.')[0] not in beside, path


def test_sources_of_the_kernels_and_hints_are_carried(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    wanted = {
        str(path.relative_to(ROOT))
        for pattern in ('*.py', '*.cpp', '*.h', 'py.typed')
        for path in (ROOT / 'apa_mm').rglob(pattern)
    }
    assert wanted <= names


def test_the_core_of_the_suite_exists():
    """A renamed recipe must not leave the second stack untested."""
    assert all((ROOT / 'configs' / name).is_file() for name in CORE_RECIPES)
    assert all((ROOT / name).exists() for name in CORE)


@pytest.mark.parametrize('missing', [('mmengine', ), ('mmcv', ),
                                     ('mmengine', 'mmcv')])
def test_a_missing_stack_is_named(missing):
    # The room alone, without what the package's own __init__ does.
    code = ('import sys, types\n'
            'package = sys.modules["apa_mm"] = types.ModuleType("apa_mm")\n'
            f'package.__path__ = [{str(ROOT / "apa_mm")!r}]\n'
            f'sys.modules.update(dict.fromkeys({missing!r}))\n'
            'import apa_mm.registry')
    result = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True, text=True)
    line = result.stderr.splitlines()[-1]
    assert line.startswith('ModuleNotFoundError: apa_mm needs mmengine and '
                           f"mmcv, but {' and '.join(missing)} cannot be")
    assert "'apa_mm[official]'" in line and "'apa_mm[onedl]'" in line


def test_reading_a_config_is_silent():
    """mmengine's import of pkg_resources is no news for the user."""
    code = ('import apa_mm.registry, mmengine\n'
            f'mmengine.Config.fromfile({str(RECIPE)!r})')
    result = subprocess.run([sys.executable, '-c', code], capture_output=True,
                            text=True, cwd=ROOT)
    assert (result.returncode, result.stderr) == (0, '')
