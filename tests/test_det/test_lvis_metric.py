import json

import numpy as np
import pytest
from support.eval_cases import (CUP, HIT, Case, assert_same, evaluate_one,
                        lvis_numbers, one_image, run)
from mmdet.evaluation.metrics import LVISMetric as MMDetLVISMetric
from mmdet.registry import METRICS

from apa_mm.det import lvis_metric
from apa_mm.det.lvis_metric import LVISMetric

AP_KEYS = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'APr', 'APc', 'APf')


@pytest.fixture
def old_numpy(monkeypatch):
    """Give lvis 0.5.3 the ``np.float`` that it was written for."""
    monkeypatch.setattr(np, 'float', float, raising=False)


@pytest.fixture
def unrounded(monkeypatch):
    """Let the metric return all digits."""
    monkeypatch.setattr(lvis_metric, '_formatted', float)
    monkeypatch.setattr(lvis_metric, 'rounded', float)


@pytest.mark.parametrize('seed', range(30))
def test_equals_lvis_api(seed, tmp_path, old_numpy, unrounded):
    case = Case(seed)
    metric = LVISMetric(
        case.write(tmp_path), metric=['bbox', 'segm'], classwise=True)
    got = run(metric, case)
    boxes, masks = lvis_numbers(case, 'bbox'), lvis_numbers(case, 'segm')
    assert_same(got, {**boxes, **masks})
    assert {f'segm_{key}' for key in AP_KEYS} < set(got)
    assert 0 < got['bbox_AP'] < 1 and got['bbox_AP'] != got['segm_AP']


@pytest.mark.parametrize('seed', range(3))
def test_mask_areas_as_detectron2_takes_them(seed, tmp_path, old_numpy,
                                             unrounded):
    case = Case(100 + seed)
    path = case.write(tmp_path)
    want = lvis_numbers(case, 'segm', boxed=False)
    got = run(LVISMetric(path, metric='segm', segm_area='mask'), case)
    assert_same(got, want)
    encoded = run(
        LVISMetric(path, metric='segm', segm_area='mask'), case,
        case.samples(encoded=True))
    assert encoded == got
    assert got != run(LVISMetric(path, metric='segm'), case)


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_same_keys_and_values_as_mmdet(tmp_path, old_numpy):
    case = Case(7)
    # mmdet names classwise rows right only if categories are sorted.
    case.categories.sort(key=lambda category: category['id'])
    path = case.write(tmp_path)
    config = dict(
        ann_file=path,
        metric=['bbox', 'segm', 'proposal'],
        classwise=True,
        proposal_nums=(100, 300, 1000))
    want = run(MMDetLVISMetric(**config), case)
    got = run(LVISMetric(**config), case)
    assert set(got) == set(want)
    np.testing.assert_array_equal([got[k] for k in want], list(want.values()))
    items = dict(metric_items=['APr', 'AR@300'])
    assert run(LVISMetric(**config, **items), case) == pytest.approx(
        run(MMDetLVISMetric(**config, **items), case), nan_ok=True)


def test_builds_from_mmdet_registry(tmp_path):
    path, _ = one_image(tmp_path, [CUP])
    metric = METRICS.build(
        dict(type='apa_mm.LVISMetric', ann_file=path, prefix='val'))
    assert type(metric) is LVISMetric
    assert metric.prefix == 'val' and LVISMetric.default_prefix == 'lvis'


def test_zero_area_detection_is_dropped_after_the_cap(tmp_path):
    """Item A: hotcoco alone counts it as wrong."""
    flat = (0, .9, [10., 10., 10., 30.])
    got = evaluate_one(LVISMetric, tmp_path, [CUP], [flat, (0, .5, HIT)])
    assert got['lvis/bbox_AP'] == 1
    # 300 flat boxes fill the cap, so the right one is the 301st.
    found = [flat] * 300 + [(0, .5, HIT)]
    got = evaluate_one(LVISMetric, tmp_path, [CUP], found)
    assert got['lvis/bbox_AP'] == 0


def test_zero_area_object_is_dropped(tmp_path):
    """Item B: hotcoco alone counts it as missed."""
    flat = (3, [50, 50, 0, 20])
    got = evaluate_one(LVISMetric, tmp_path, [CUP, flat], [(0, .5, HIT)])
    assert got['lvis/bbox_AP'] == 1
    # It does not make its category present either.
    pan = (1, [50, 50, 0, 20])
    got = evaluate_one(
        LVISMetric, tmp_path, [CUP, pan], [(0, .5, HIT), (1, .9, HIT)],
        image=dict(neg_category_ids=[]), classwise=True)
    assert np.isnan(got['lvis/pan_precision'])


def test_object_with_id_zero_is_matched(tmp_path):
    """Item C: lvis-api takes a match with id 0 for none."""
    cup = (*CUP, dict(id=0))
    got = evaluate_one(LVISMetric, tmp_path, [cup], [(0, .5, HIT)])
    assert got['lvis/bbox_AP'] == 1


@pytest.mark.parametrize('key, ap', [('iscrowd', .5), ('ignore', 1.)])
def test_ignore_counts_and_iscrowd_does_not(tmp_path, old_numpy, key, ap):
    """Item D: hotcoco alone does the reverse."""
    other = (3, [60, 60, 20, 20], {key: 1})
    found = [(0, .9, HIT), (0, .8, [60., 60., 80., 80.]),
             (0, .7, [60., 60., 80., 81.])]
    got = evaluate_one(LVISMetric, tmp_path, [CUP, other], found)
    reference = evaluate_one(MMDetLVISMetric, tmp_path, [CUP, other], found)
    assert got == {k: reference[k] for k in got}
    got = evaluate_one(LVISMetric, tmp_path, [CUP, other], found[:1])
    assert got['lvis/bbox_AP'] == pytest.approx(ap, abs=.01)


def test_labels_follow_file_order(tmp_path):
    """Item G: hotcoco lists category ids sorted; the file has 3 before 1."""
    found = [(0, .5, HIT), (1, .9, HIT)]
    got = evaluate_one(LVISMetric, tmp_path, [CUP], found, classwise=True)
    assert got['lvis/cup_precision'] == 1
    assert np.isnan(got['lvis/pan_precision'])
    assert got['lvis/bbox_APf'] == 1 and got['lvis/bbox_APr'] == -1


def test_no_detection_at_all_gives_zero(tmp_path):
    """Item J: mmdet returns no key, which breaks ``save_best``."""
    got = evaluate_one(LVISMetric, tmp_path, [CUP], [])
    assert got['lvis/bbox_AP'] == 0 and len(got) == 9


def test_classwise_has_classes_without_objects(tmp_path):
    """Item K: hotcoco's own table leaves them out."""
    found = [(0, .5, HIT)]
    got = evaluate_one(LVISMetric, tmp_path, [CUP], found, classwise=True)
    assert np.isnan(got['lvis/pan_precision'])
    assert set(got) >= {'lvis/cup_precision', 'lvis/pan_precision'}


def test_equal_iou_is_decided_by_file_order(tmp_path, old_numpy):
    """The order of an image's objects matters when IoUs tie."""
    objects = [(3, [40, 0, 50, 50], dict(id=9)), (3, [20, 0, 50, 50],
                                                  dict(id=4))]
    found = [(0, .9, [30., 0., 80., 50.]), (0, .8, [20., 0., 70., 50.])]
    for pair in (objects, objects[::-1]):
        got = evaluate_one(LVISMetric, tmp_path, pair, found)
        want = evaluate_one(MMDetLVISMetric, tmp_path, pair, found)
        assert got == want
    first = evaluate_one(LVISMetric, tmp_path, objects, found)
    assert first != evaluate_one(LVISMetric, tmp_path, objects[::-1], found)


def test_format_only_writes_mmdets_files(tmp_path, old_numpy):
    case = Case(8)
    path = case.write(tmp_path)
    for name, metric_class in (('ours', LVISMetric), ('mmdet',
                                                      MMDetLVISMetric)):
        metric = metric_class(
            path,
            metric=['bbox', 'segm'],
            format_only=True,
            outfile_prefix=str(tmp_path / name))
        assert run(metric, case) == {}
    for kind in ('bbox', 'segm'):
        ours = json.loads((tmp_path / f'ours.{kind}.json').read_text())
        assert len(ours) > 300
        assert ours == json.loads(
            (tmp_path / f'mmdet.{kind}.json').read_text())


def test_format_only_needs_no_ground_truth(tmp_path):
    case = Case(8)
    truth = case.truth()
    del truth['annotations']
    for image in truth['images']:
        del image['neg_category_ids']
    path = tmp_path / 'info.json'
    path.write_text(json.dumps(truth))
    prefix = str(tmp_path / 'out')
    metric = LVISMetric(str(path), format_only=True, outfile_prefix=prefix)
    assert run(metric, case) == {}
    assert len(json.loads((tmp_path / 'out.bbox.json').read_text())) > 300


def test_outfile_prefix_writes_and_evaluates(tmp_path):
    case = Case(9)
    path = case.write(tmp_path)
    metric = LVISMetric(path, outfile_prefix=str(tmp_path / 'kept'))
    assert run(metric, case) == run(LVISMetric(path), case)
    assert len(json.loads((tmp_path / 'kept.bbox.json').read_text())) > 300


@pytest.mark.parametrize('kwargs, error, text', [
    (dict(ann_file=None), ValueError, 'needs ann_file, but got None'),
    (dict(metric='box'), KeyError, 'metric should be one of'),
    (dict(metric='proposal_fast'), ValueError, "use metric='proposal'"),
    (dict(metric_items=['mAP']), KeyError, "but got 'mAP'"),
    (dict(segm_area='area'), ValueError, "segm_area must be one of"),
    (dict(format_only=True), ValueError, 'needs outfile_prefix'),
    (dict(ann_file='no/where.json'), FileNotFoundError, 'no/where.json'),
    (dict(max_dets=100), TypeError, 'LVISMetric takes none of'),
    (dict(backend='lvis'), TypeError, 'backend'),
])
def test_bad_arguments(tmp_path, kwargs, error, text):
    path, _ = one_image(tmp_path, [CUP])
    with pytest.raises(error, match=text):
        LVISMetric(**{'ann_file': path, **kwargs})
