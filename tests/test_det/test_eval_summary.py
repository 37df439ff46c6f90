import numpy as np
import pytest

from apa_mm.det.eval_summary import (PrecisionGrid, average_precision,
                                     average_recall, rounded)



def test_minus_one_is_left_out():
    precision = np.full((2, 101, 3, 4, 1), -1.0)
    precision[0, :, 0] = .2
    precision[1, :, 0] = .4
    precision[:, :, 1, 2] = .9
    recall = np.full((2, 3, 4, 1), -1.0)
    recall[:, 0, 1] = .5
    grid = PrecisionGrid(precision, recall, np.array([.5, .75]), [100])
    assert average_precision(grid) == pytest.approx(.3)
    assert average_precision(grid, iou_thr=.75) == pytest.approx(.4)
    assert average_precision(grid, iou_thr=.6) == -1
    assert average_precision(grid, area='medium') == pytest.approx(.6)
    assert average_precision(grid, columns=[1]) == -1
    assert np.isnan(average_precision(grid, columns=[2], missing=np.nan))
    assert average_recall(grid, area='small') == .5
    assert average_recall(grid) == -1


def test_rounding_is_numpys():
    # Python gives 0.003 and 0.013, numpy rounds half to even.
    assert rounded(.0025) == .002 and rounded(.0125) == .012
