"""Child registries of mmengine's root registries, scope ``apa_mm``.

A config that writes ``type='apa_mm.AGLU'`` makes mmengine import this module
by name and then, through ``locations``, the modules that register classes. No
``custom_imports`` is needed. This module must import nothing of ours: mmengine
swallows an ImportError raised here and reports only "not in the registry".
"""
import warnings
from importlib.util import find_spec

_MISSING = [name for name in ('mmengine', 'mmcv') if find_spec(name) is None]
if _MISSING:
    raise ModuleNotFoundError(
        f"apa_mm needs mmengine and mmcv, but {' and '.join(_MISSING)} cannot "
        "be found; install one stack, as the README says: pip install "
        "--no-build-isolation 'apa_mm[official]', or 'apa_mm[onedl]' for the "
        "maintained forks",
        name=_MISSING[0])

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import \
    OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import VISUALIZERS as MMENGINE_VISUALIZERS
from mmengine.registry import Registry

# mmengine imports it anew for each config that inherits by "mmdet::".
warnings.filterwarnings('ignore', 'pkg_resources is deprecated', UserWarning)

__all__ = [
    'DATASETS', 'DATA_SAMPLERS', 'HOOKS', 'METRICS', 'MODELS',
    'OPTIM_WRAPPER_CONSTRUCTORS', 'TRANSFORMS', 'VISUALIZERS'
]

SCOPE = 'apa_mm'

MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope=SCOPE,
    locations=[
        'apa_mm.layers', 'apa_mm.surgery', 'apa_mm.backbones',
        'apa_mm.losses', 'apa_mm.det', 'apa_mm.cls', 'apa_mm.lm'
    ])
HOOKS = Registry(
    'hook', parent=MMENGINE_HOOKS, scope=SCOPE, locations=['apa_mm.engine'])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    scope=SCOPE,
    locations=['apa_mm.engine'])
METRICS = Registry(
    'metric',
    parent=MMENGINE_METRICS,
    scope=SCOPE,
    locations=[
        'apa_mm.evaluation', 'apa_mm.det', 'apa_mm.cls', 'apa_mm.lm'
    ])
DATASETS = Registry(
    'dataset',
    parent=MMENGINE_DATASETS,
    scope=SCOPE,
    locations=['apa_mm.det', 'apa_mm.cls', 'apa_mm.lm'])
DATA_SAMPLERS = Registry(
    'data sampler',
    parent=MMENGINE_DATA_SAMPLERS,
    scope=SCOPE,
    locations=['apa_mm.cls'])
TRANSFORMS = Registry(
    'transform',
    parent=MMENGINE_TRANSFORMS,
    scope=SCOPE,
    locations=['apa_mm.det', 'apa_mm.cls'])
VISUALIZERS = Registry(
    'visualizer',
    parent=MMENGINE_VISUALIZERS,
    scope=SCOPE,
    locations=['apa_mm.det'])
