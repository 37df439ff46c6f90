"""Arrows between the rooms go one way, and no room grows out of sight."""
from collections import defaultdict
from pathlib import Path

import pytest
from support.arrows import Package, circles

import apa_mm

ROOT = Path(apa_mm.__file__).parent
#: Lowest first; a module names only what lies in its own row or below.
#: Rooms that share a row do not name each other.
ROOMS = ('version', 'utils', 'registry', 'kernels', 'functional', 'layers',
         'surgery', 'weights', 'backbones', 'losses', 'evaluation', 'data',
         'preflight', 'engine', 'det cls lm', 'checkpoint', 'analysis')
ROW = {room: row for row, rooms in enumerate(ROOMS) for room in rooms.split()}
#: The aim is 17,000. A commit that raises this says what for.
MOST_LINES = 20_591
MOST_LINES_OF_A_FILE = 350


def room(module):
    return module.split('.')[1] if '.' in module else ''


def upward(package, row):
    """List the arrows that leave a room for one that is not below it.

    The package's own ``__init__`` has no room: who imports anything imports
    it first. Registries say where their classes are; that is their purpose.
    """
    found = set()
    for module in package.trees:
        if room(module) in ('', 'registry'):
            continue
        for arrow in package.arrows(module):
            own, other = room(module), room(arrow.target)
            if other not in ('', own) and row.get(other, 0) >= row.get(own, 0):
                found.add(f'{arrow.where} ({own}) names {arrow.target}')
    return sorted(found)


def edges(package):
    """Return the modules that each module imports or names.

    A string with the name of the module's own room asks nothing of it.
    """
    graph = defaultdict(set)
    for module in package.trees:
        if room(module) not in ('', 'registry'):
            graph[module] |= {
                a.target for a in package.arrows(module) if room(a.target)
                and not (a.in_string and module.startswith(a.target + '.'))
            }
    return graph


@pytest.fixture(scope='module')
def package():
    return Package(ROOT)


def test_every_module_has_a_room(package):
    assert {room(m) for m in package.trees} - {''} <= set(ROW)


def test_arrows_go_down(package):
    found = upward(package, ROW)
    assert not found, '\n' + '\n'.join(found)


def test_no_circles(package):
    found = circles(edges(package))
    assert not found, '\n' + '\n'.join(map(str, found))


def lines(*patterns):
    return {
        path: len(path.read_text().splitlines())
        for pattern in patterns for path in sorted(ROOT.rglob(pattern))
    }


def test_files_are_short():
    long = {
        str(path.relative_to(ROOT)): n
        for path, n in lines('*.py', '*.cpp', '*.h').items()
        if n > MOST_LINES_OF_A_FILE
    }
    assert not long


def test_the_package_is_small():
    assert sum(lines('*.py', '*.cpp', '*.h').values()) <= MOST_LINES


@pytest.fixture
def house(tmp_path):
    """Build a package of two rooms from the text of the lower one."""

    def build(text):
        root = tmp_path / 'house'
        for name, content in dict(low=text, high='class Roof: ...\n').items():
            (root / name).mkdir(parents=True)
            (root / name / '__init__.py').write_text('')
            (root / name / 'module.py').write_text(content)
        (root / '__init__.py').write_text('')
        return Package(root)

    return build


@pytest.mark.parametrize('text', [
    'import house.high',
    'from ..high.module import Roof',
    'from house.high import module',
    'def late():\n    from house.high.module import Roof',
    'if False:\n    import house.high.module as m',
    "CFG = dict(type='house.Roof')",
    "find('house.high.module.Roof')",
    "def f(x, name=f'house.high.{x}'): ...",
    "same = type(x).__name__ == 'Roof'",
])
def test_ways_to_name_a_higher_room_are_seen(house, text):
    found = upward(house(text), dict(low=0, high=1))
    assert len(found) == 1 and '(low) names house.high' in found[0]


@pytest.mark.parametrize('text', [
    '"""See house.Roof."""', 'import os', "raise E('no house.Roof here')",
    'from house import __version__', "__all__ = ['Roof']\nRoof = int",
    'from . import other',
])
def test_words_and_lower_rooms_are_no_arrows(house, text):
    assert not upward(house(text), dict(low=0, high=1))


def test_circles_are_found():
    graph = dict(a={'b'}, b={'c'}, c={'a', 'd'}, d=set(), e={'a'}, f={'f'})
    assert circles(graph) == [['a', 'b', 'c'], ['f']]
