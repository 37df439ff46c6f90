"""What needs MMDetection; registers only where that can be imported."""
import logging
from importlib.util import find_spec

from mmengine.logging import print_log

from apa_mm.utils import HAS_MMDET

if HAS_MMDET:
    from .bbox_head import LargeVocabBBoxHead  # noqa: F401
    from .coco_metric import CocoMetric  # noqa: F401
    from .datasets import CocoDataset, LVISV1Dataset  # noqa: F401
    from .datasets import V3DetDataset  # noqa: F401
    from .eqlv2 import EQLV2Loss  # noqa: F401
    from .federated import FederatedCascadeRoIHead  # noqa: F401
    from .federated import FederatedLVISDataset, FederatedRoIHead  # noqa: F401
    from .lvis_metric import LVISMetric  # noqa: F401
    from .mask_head import ClasswiseFCNMaskHead  # noqa: F401
    from .nms import exact_batched_nms, exact_multiclass_nms  # noqa: F401
    from .tta import LargeVocabTTAModel  # noqa: F401
elif find_spec('mmdet') is not None:
    print_log(
        'mmdet is installed but mmcv has no compiled ops, so apa_mm registers '
        'nothing for detection; build mmcv with its ops instead of mmcv-lite',
        logger='current',
        level=logging.WARNING)
