import logging

import numpy as np
import pytest
from support.eval_cases import CUP, Case, assert_same, one_image, run

from apa_mm.det import eval_fallback, lvis_metric
from apa_mm.det.lvis_metric import LVISMetric


@pytest.fixture
def unrounded(monkeypatch):
    """Let the metric return all digits."""
    monkeypatch.setattr(lvis_metric, '_formatted', float)
    monkeypatch.setattr(lvis_metric, 'rounded', float)


@pytest.mark.parametrize('segm_area', ['box', 'mask'])
def test_fallback_gives_the_same_numbers(tmp_path, monkeypatch, unrounded,
                                         segm_area, caplog):
    assert not hasattr(np, 'float')
    case = Case(10)
    config = dict(
        ann_file=case.write(tmp_path),
        metric=['bbox', 'segm', 'proposal'],
        classwise=True,
        segm_area=segm_area)
    want = run(LVISMetric(**config), case)
    monkeypatch.setattr(eval_fallback, 'HAS_HOTCOCO', False)
    with caplog.at_level(logging.WARNING, logger='mmengine'):
        metric = LVISMetric(**config)
    assert metric.backend == 'lvis'
    assert_same(run(metric, case), want)
    assert not hasattr(np, 'float')


def test_fallback_refuses_what_would_not_end(tmp_path, monkeypatch):
    case = Case(10)
    path = case.write(tmp_path)
    monkeypatch.setattr(eval_fallback, 'HAS_HOTCOCO', False)
    monkeypatch.setattr(eval_fallback, 'MAX_CELLS', 12 * 6 - 1)
    with pytest.raises(
            RuntimeError,
            match="truth.json has 12 images and 6 categories.*pip install "
            "'hotcoco>=1.3,<2', or set backend='lvis'"):
        LVISMetric(path)
    assert LVISMetric(path, backend='lvis').backend == 'lvis'
    with pytest.raises(RuntimeError, match="hotcoco is not installed; pip"):
        LVISMetric(path, backend='hotcoco')


def test_other_hotcoco_versions_are_not_used(tmp_path, monkeypatch):
    import hotcoco
    path, _ = one_image(tmp_path, [CUP])
    for version in ('1.2.9', '2.0.0'):
        monkeypatch.setattr(hotcoco, '__version__', version)
        assert LVISMetric(path).backend == 'lvis'
        with pytest.raises(RuntimeError, match=f'{version} is not >=1.3,<2'):
            LVISMetric(path, backend='hotcoco')
