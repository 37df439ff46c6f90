"""Imports what takes a new process seconds: of others alone, never ours."""
import gc
import importlib

import pytest
from mmengine.config import utils
from mmengine.utils import get_installed_path
from support.configs import hasten

for name in ('matplotlib.pyplot', 'pycocotools.coco', 'scipy.stats',
             'torch.distributed', 'torch.optim', 'mmengine.runner',
             'mmengine.visualization', 'mmdet.apis', 'mmdet.datasets',
             'mmdet.engine', 'mmdet.evaluation', 'mmdet.models',
             'mmdet.visualization', 'mmpretrain.apis', 'mmpretrain.datasets',
             'mmpretrain.engine', 'mmpretrain.evaluation',
             'mmpretrain.models', 'mmpretrain.visualization'):
    try:
        importlib.import_module(name)
    except Exception:
        # Not installed, or cannot be: whoever needs it says so.
        pass

hasten(pytest.MonkeyPatch())
for name in ('mmdet', 'mmpretrain'):
    try:
        # Reads and keeps what is listed, then says that this is not.
        utils._get_cfg_metainfo(get_installed_path(name), '')
    except Exception:
        pass
gc.freeze()
