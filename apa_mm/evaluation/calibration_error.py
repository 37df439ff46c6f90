"""Calibration errors of a classifier as an mmengine metric."""
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from mmengine.evaluator import BaseMetric
from mmengine.fileio import dump

from apa_mm.functional.calibration import (
    calibration_bins, expected_calibration_error, maximum_calibration_error)
from apa_mm.registry import METRICS

from .predictions import read_prediction

# Softmax in float32 may miss 1 by its rounding error.
ROUNDING = 1e-5


@METRICS.register_module()
class CalibrationError(BaseMetric):
    """Expected and maximum calibration error of the predicted class.

    See :mod:`apa_mm.functional.calibration` for bins and formulas.

    Args:
        num_bins (int): K, bins of equal width, 1 or more.
        out_file (str, optional): ``.json``, ``.yml`` or ``.pkl`` file for
            borders, counts, accuracy and confidence of the bins.
        collect_device, prefix: Of :class:`mmengine.evaluator.BaseMetric`.
    """

    default_prefix = 'calibration'

    def __init__(self, num_bins: int = 10, out_file: Optional[str] = None,
                 collect_device: str = 'cpu',
                 prefix: Optional[str] = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if num_bins < 1:
            raise ValueError(f'num_bins must be 1 or more, but got {num_bins}')
        if out_file is not None and not out_file.endswith(
                ('.json', '.yml', '.pkl')):
            raise ValueError('out_file must end with .json, .yml or .pkl, but '
                             f'got {out_file!r}')
        self.num_bins = num_bins
        self.out_file = out_file

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the confidence of every sample and whether it is right."""
        for sample in data_samples:
            pred, label, scores = read_prediction(sample)
            confidence = float(scores[pred])
            if not -ROUNDING <= confidence <= 1 + ROUNDING:
                raise ValueError(
                    'pred_score must hold probabilities in [0, 1], but got '
                    f'{confidence}; calibration is not defined for raw logits')
            self.results.append((min(max(confidence, 0.), 1.), pred == label))

    def compute_metrics(
            self, results: List[Tuple[float, bool]]) -> Dict[str, float]:
        """Return 'ece' and 'mce' in [0, 1], and write the bins if asked to."""
        pairs = torch.tensor(results, dtype=torch.float64).reshape(-1, 2)
        # Probabilities are float32, and so must the borders of the bins be.
        bins = calibration_bins(pairs[:, 0].float(), pairs[:, 1] > 0,
                                self.num_bins)
        if self.out_file is not None:
            dump({name: value.tolist()
                  for name, value in bins._asdict().items()}, self.out_file)
        return dict(ece=float(expected_calibration_error(bins)),
                    mce=float(maximum_calibration_error(bins)))
