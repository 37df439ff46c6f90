"""Settings for every test: repeatable runs, few threads, no deadline."""
import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile('repeatable', deadline=None, derandomize=True)
settings.load_profile('repeatable')
os.environ.setdefault('OMP_NUM_THREADS', '1')
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed():
    """Seed torch for every test."""
    torch.manual_seed(0)
