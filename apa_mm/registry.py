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

from mmengine import registry as root

# mmengine imports it anew for each config that inherits by "mmdet::".
warnings.filterwarnings('ignore', 'pkg_resources is deprecated', UserWarning)

__all__ = [
    'DATASETS', 'DATA_SAMPLERS', 'HOOKS', 'METRICS', 'MODELS',
    'OPTIM_WRAPPER_CONSTRUCTORS', 'TRANSFORMS'
]

SCOPE = 'apa_mm'


def _child(parent: root.Registry, *rooms: str) -> root.Registry:
    """Return our child of a registry; its classes are in these rooms."""
    return root.Registry(parent.name, parent=parent, scope=SCOPE,
                         locations=[f'{SCOPE}.{room}' for room in rooms])


MODELS = _child(root.MODELS, 'layers', 'surgery', 'backbones', 'losses', 'det',
                'cls', 'lm')
HOOKS = _child(root.HOOKS, 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(root.OPTIM_WRAPPER_CONSTRUCTORS, 'engine')
METRICS = _child(root.METRICS, 'evaluation', 'det', 'cls', 'lm')
DATASETS = _child(root.DATASETS, 'det', 'cls', 'lm')
DATA_SAMPLERS = _child(root.DATA_SAMPLERS, 'cls')
TRANSFORMS = _child(root.TRANSFORMS, 'det', 'cls')
