"""Fixed AP and boundary AP of LVIS, beside lvis-api and plain loops."""
import logging

import hotcoco.mask
import numpy as np
import pytest
import torch
from support.eval_cases import (CUP, HIT, Case, assert_same, best_of_classes,
                                edge_pixels, evaluate_one, lvis_numbers, run)

from apa_mm.det import lvis_metric
from apa_mm.det.detection_table import DetectionTable
from apa_mm.det.lvis_metric import LVISMetric
from apa_mm.det.mask_rle import boundary, boundary_ious

AP_KEYS = {'AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'APr', 'APc', 'APf'}


@pytest.fixture(autouse=True)
def old_numpy(monkeypatch):
    """Give lvis 0.5.3 the ``np.float``, and let the metric keep all digits."""
    monkeypatch.setattr(np, 'float', float, raising=False)
    monkeypatch.setattr(lvis_metric, '_formatted', float)


@pytest.mark.parametrize('limit', [10, 30, 10000])
@pytest.mark.parametrize('seed', range(4))
def test_fixed_ap_equals_lvis_api_after_a_plain_cut(seed, limit, tmp_path):
    case = Case(seed)
    area = 'mask' if seed == 3 else 'box'
    got = run(LVISMetric(
        case.write(tmp_path), metric=['bbox', 'segm'], segm_area=area,
        max_dets_per_class=limit), case)
    want = {}
    for kind, boxed in (('bbox', True), ('segm', area == 'box')):
        results = best_of_classes(case.results(kind, boxed), limit)
        want.update(lvis_numbers(case, kind, results=results, max_dets=-1,
                                 name=f'{kind}_fixed'))
        want.update(lvis_numbers(case, kind, boxed=boxed))
        assert {f'{kind}_fixed_{key}' for key in AP_KEYS} < set(got)
    assert_same(got, want)
    if limit < 10000:
        assert got['bbox_fixed_AP'] != got['bbox_AP']


@pytest.mark.parametrize('seed', range(4))
def test_boundary_ap_equals_lvis_api_with_plain_boundaries(seed, tmp_path):
    case = Case(50 + seed)
    ratio = (.02, .05)[seed % 2]
    got = run(LVISMetric(
        case.write(tmp_path), metric='segm', max_dets_per_class=20,
        dilation_ratio=ratio), case, case.samples(encoded=seed == 2))
    results = best_of_classes(case.results('segm', True), 20)
    want = {
        **lvis_numbers(case, 'segm'),
        **lvis_numbers(case, 'segm', results=results, max_dets=-1,
                       name='segm_fixed'),
        **lvis_numbers(case, 'segm', ratio=ratio, name='segm_boundary'),
        **lvis_numbers(case, 'segm', results=[*map(dict, results)],
                       max_dets=-1, ratio=ratio, name='segm_boundary_fixed')
    }
    assert len(got) == 4 * len(AP_KEYS)
    assert_same(got, want)
    assert 0 < got['segm_boundary_AP'] < got['segm_AP']


@pytest.mark.parametrize('size', [(31, 40), (60, 300)])
def test_boundary_is_what_a_square_does_not_cover(size):
    rng = np.random.default_rng(0)
    for ratio in (.001, .02, .1):
        mask = np.zeros(size, dtype=bool)
        mask[3:28, :] = rng.random((25, size[1])) < .995
        code = boundary(hotcoco.mask.encode(mask), ratio)
        np.testing.assert_array_equal(
            hotcoco.mask.decode(code), edge_pixels(mask, ratio))
    empty = hotcoco.mask.encode(np.zeros(size, dtype=bool))
    assert boundary(empty, .02) == empty


def test_the_smaller_of_both_ious_counts():
    """A ring as wide as the boundary has all of it, and half of the mask."""
    full = np.zeros((100, 100), dtype=bool)
    full[20:60, 20:60] = True
    ring = full.copy()
    ring[27:53, 27:53] = False
    found, there = [hotcoco.mask.encode(ring)], [hotcoco.mask.encode(full)]
    assert boundary(there[0], .05) == found[0]
    want = ring.sum() / full.sum()
    assert boundary_ious(found, there, .5, .05) == pytest.approx(want)
    assert .5 < want < .6


def test_cut_is_before_anything_is_left_out(tmp_path):
    """Detections without area or of unknown classes use up the limit."""
    flat = (0, .9, [10., 10., 10., 30.])
    config = dict(max_dets_per_class=1)
    got = evaluate_one(LVISMetric, tmp_path, [CUP], [flat, (0, .5, HIT)],
                       **config)
    assert (got['lvis/bbox_AP'], got['lvis/bbox_fixed_AP']) == (
        pytest.approx(1), 0)
    case = Case(0)
    cup = case.categories[0]['id']
    case.images, case.annotations = case.images[:2], [
        dict(id=1, image_id=case.images[0]['id'], category_id=cup,
             bbox=[10., 10., 20., 20.], area=400.)]
    case.images[1]['neg_category_ids'] = []
    found = dict(bboxes=torch.tensor([HIT]), labels=torch.tensor([0]))
    samples = [
        dict(img_id=image['id'], ori_shape=(120, 140),
             pred_instances=dict(found, scores=torch.tensor([score])))
        for image, score in zip(case.images, (.5, .9), strict=True)
    ]
    got = run(LVISMetric(case.write(tmp_path), **config), case, samples)
    assert (got['bbox_AP'], got['bbox_fixed_AP']) == (pytest.approx(1), 0)


def test_an_image_has_no_limit(tmp_path):
    """The right box is the 301st of its image, but the first of its class."""
    found = [(1, .9, HIT)] * 300 + [(0, .5, HIT)]
    got = evaluate_one(LVISMetric, tmp_path, [CUP], found,
                       max_dets_per_class=1)
    assert (got['lvis/bbox_AP'], got['lvis/bbox_fixed_AP']) == (
        0, pytest.approx(1))


def test_area_at_a_border_belongs_to_both_ranges(tmp_path):
    got = evaluate_one(
        LVISMetric, tmp_path, [(3, [10, 10, 32, 32])],
        [(0, .5, [10., 10., 42., 42.])], max_dets_per_class=5)
    assert got['lvis/bbox_fixed_APs'] == got['lvis/bbox_APs'] > .99
    assert got['lvis/bbox_fixed_APm'] == got['lvis/bbox_APm'] > .99


def test_objects_of_the_range_go_before_better_ones(tmp_path):
    """The box is nearer to the small object, and also hits the medium one."""
    objects = [(3, [10, 10, 30, 30]), (3, [10, 10, 34, 34])]
    got = evaluate_one(LVISMetric, tmp_path, objects,
                       [(0, .5, [10., 10., 41., 41.])], max_dets_per_class=5)
    for key in AP_KEYS:
        assert got[f'lvis/bbox_fixed_{key}'] == got[f'lvis/bbox_{key}']
    assert got['lvis/bbox_fixed_APm'] > got['lvis/bbox_fixed_AP'] > 0


def test_of_equal_ious_the_last_in_the_file_counts(tmp_path):
    objects = [(3, [40, 0, 50, 50]), (3, [20, 0, 50, 50])]
    found = [(0, .9, [30., 0., 80., 50.]), (0, .8, [20., 0., 70., 50.])]
    values = []
    for pair in (objects, objects[::-1]):
        got = evaluate_one(LVISMetric, tmp_path, pair, found,
                           max_dets_per_class=5)
        assert got['lvis/bbox_fixed_AP'] == got['lvis/bbox_AP']
        values.append(got['lvis/bbox_AP'])
    assert values[0] != values[1]


def test_classes_with_few_detections_are_told(tmp_path, caplog):
    from mmengine.logging import MMLogger
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, logger.name):
            evaluate_one(
                LVISMetric, tmp_path, [CUP, (1, [50, 50, 20, 20])],
                [(0, .5, HIT), (0, .4, HIT), (1, .5, HIT)],
                max_dets_per_class=2)
    finally:
        logger.removeHandler(caplog.handler)
    assert '1 of 2 classes have fewer than 2 detections' in caplog.text


def test_recall_at_300_is_left_to_the_ordinary_numbers(tmp_path):
    got = evaluate_one(
        LVISMetric, tmp_path, [CUP], [(0, .5, HIT)], max_dets_per_class=9,
        metric=['bbox', 'proposal'], metric_items=['APf', 'AR@300'])
    assert {key.split('/')[1] for key in got} == {
        'bbox_APf', 'bbox_AR@300', 'bbox_fixed_APf', 'APf', 'AR@300'}


def test_detection_takes_23_bytes():
    table = DetectionTable(np.linspace(.5, .95, 10), 300)
    image = dict(id=0, neg_category_ids=[], not_exhaustive_category_ids=[])
    table.update(image, [], np.ones((50, 7)), np.ones(50), None)
    assert table.images[0].nbytes == 50 * 23


@pytest.mark.parametrize('kwargs, text', [
    (dict(max_dets_per_class=0), 'positive whole number, but got 0'),
    (dict(max_dets_per_class=True), 'positive whole number, but got True'),
    (dict(dilation_ratio=.02), r"needs metric 'segm', but got 0.02"),
    (dict(dilation_ratio=0., metric='segm'), r'must be in \(0, 1\]'),
])
def test_bad_arguments(kwargs, text):
    with pytest.raises(ValueError, match=text):
        LVISMetric('no/matter.json', **kwargs)
