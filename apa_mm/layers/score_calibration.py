"""Post-hoc calibration of a detector's scores, with the counts it needs."""
from torch import Tensor, nn

from apa_mm.functional.long_tail import CALIBRATIONS, calibrate_scores
from apa_mm.layers.class_counts import ClassCounts
from apa_mm.registry import MODELS
from apa_mm.utils.checks import check_choice


@MODELS.register_module()
class ScoreCalibration(ClassCounts, nn.Module):
    """NorCal or IIF on scores (..., C + 1), background last.

    Arguments and errors are those of
    :func:`apa_mm.functional.calibrate_scores`, and C, which a box head fills
    in, and of :class:`~apa_mm.layers.class_counts.ClassCounts`, which says
    where the image counts come from. Training does not see it.

    Example:
        >>> import torch
        >>> calibrate = ScoreCalibration(2)
        >>> calibrate.set_class_frequency([10, 1], num_images=10)
        >>> calibrate(torch.tensor([0.6, 0.1, 0.3]))
        tensor([0.1304, 0.2174, 0.6522])
    """

    one_label_per_image = False
    predicts_with_class_counts = True
    shown = ('num_classes', 'method', 'gamma')

    def __init__(self, num_classes: int, method: str = 'norcal',
                 gamma: float = 1.0) -> None:
        super().__init__()
        check_choice('method', method, CALIBRATIONS)
        self.method = method
        self.gamma = gamma
        self.init_class_counts(num_classes)

    @staticmethod
    def needs_class_counts(cfg: dict) -> bool:
        """Return whether a config of it needs class counts."""
        return True

    def forward(self, scores: Tensor) -> Tensor:
        """Return the calibrated scores, as many."""
        return calibrate_scores(scores, self.require_class_counts(),
                                self.method, self.gamma)
