"""Settings for every test: repeatable runs, few threads, no leftovers."""
import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from mmengine.utils import ManagerMixin

from apa_mm.utils.imports import HAS_TRITON

sys.path.insert(0, str(Path(__file__).parent / 'tests'))

# Its kernels cannot be defined, and doctests cannot be looked for, without it.
collect_ignore = [] if HAS_TRITON else ['apa_mm/kernels/apa_triton.py']
settings.register_profile('repeatable', deadline=None, derandomize=True)
settings.load_profile('repeatable')
os.environ.setdefault('OMP_NUM_THREADS', '1')
torch.set_num_threads(1)


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
