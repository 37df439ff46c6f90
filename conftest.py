"""Settings for every test: repeatable runs, few threads, no leftovers."""
import gc
import os
import sys
from pathlib import Path

import pytest
import torch
# When first imported it caches its grammar, in a file that another process
# may read half written: import it before the workers start.
import yapf.yapflib.yapf_api  # noqa: F401
from hypothesis import settings
from mmengine.utils import ManagerMixin

from apa_mm.utils.imports import HAS_TRITON

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / 'tests'))
# tools/demo; last, since tools/test.py must not stand for another module.
sys.path.append(str(ROOT / 'tools'))
# Processes that tests start find the package and the helpers too.
os.environ['PYTHONPATH'] = os.pathsep.join(
    [str(ROOT), str(ROOT / 'tests'), os.environ.get('PYTHONPATH', '')])

#: What also runs on the OneDL forks: where the two stacks could differ and
#: what a user would lose most by.
CORE = [
    'apa_mm/functional', 'apa_mm/kernels', 'apa_mm/layers',
    'tests/test_functional', 'tests/test_kernels', 'tests/test_layers',
    'tests/test_registry.py', 'tests/test_imports.py', 'tests/test_weights',
    'tests/test_evaluation', 'tests/test_det/test_lvis_metric.py',
    'tests/test_det/test_coco_metric.py', 'tests/test_det/test_mask_head.py'
]
#: Recipes of the core.
CORE_RECIPES = [
    'det/lvis/mask-rcnn_apa-seresnet50_fpn_gol_sample1e-3-ms-2x_lvis-v1.py',
    'cls/imagenet_lt/apa-seresnet50_4xb64-mixup-200e_imagenet-lt.py',
    'cls/cifar100_lt/apa-seresnet32_1xb512-mixup-500e_cifar100-lt-ir100.py'
]

# Its kernels cannot be defined, and doctests cannot be looked for, without it.
collect_ignore_glob = [] if HAS_TRITON else ['apa_mm/*/*triton*.py']
settings.register_profile('repeatable', deadline=None, derandomize=True)
settings.load_profile('repeatable')
os.environ.setdefault('OMP_NUM_THREADS', '1')
torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """Mark the core by path, so that no file has to know of it."""
    recipes = tuple(f'_recipes_run.py::test_recipe[configs/{name}]'
                    for name in CORE_RECIPES)
    for item in items:
        if item.nodeid.startswith(tuple(CORE)) or item.nodeid.endswith(
                recipes):
            item.add_marker(pytest.mark.core)


@pytest.fixture(autouse=True)
def seed():
    """Seed torch for every test."""
    torch.manual_seed(0)


def managers(kind=ManagerMixin):
    """Yield every class that keeps its instances by name."""
    for child in kind.__subclasses__():
        yield child
        yield from managers(child)


@pytest.fixture(autouse=True)
def no_leftovers():
    """Forget what a Runner leaves in mmengine's global managers.

    A default scope would change what later tests build, and a logger or a
    visualizer would go on writing into a folder that is gone.
    """
    yield
    for manager in managers():
        manager._instance_dict.clear()


@pytest.fixture(scope='session', autouse=True)
def plain_configs():
    """Let configs be read faster, and written unformatted."""
    from support.configs import hasten
    with pytest.MonkeyPatch.context() as patch:
        hasten(patch)
        yield


def pytest_collection_finish():
    """Do not look through the libraries in every garbage collection."""
    gc.freeze()
