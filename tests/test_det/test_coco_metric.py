import json

import numpy as np
import pytest
import torch
from support.eval_cases import COCO_NAMES, Case, assert_same, coco_numbers, run
from mmdet.evaluation.metrics import CocoMetric as MMDetCocoMetric
from mmdet.registry import METRICS

from apa_mm.det import coco_report, streaming
from apa_mm.det.coco_metric import CocoMetric


@pytest.fixture
def unrounded(monkeypatch):
    """Let the metric return all digits."""
    monkeypatch.setattr(coco_report, 'rounded', float)


def perfect_boxes(folder, count):
    """Write ``count`` apart objects of one class; return path and sample."""
    boxes = [[12 * (k % 15), 12 * (k // 15), 10, 10] for k in range(count)]
    truth = dict(
        images=[dict(id=1, height=200, width=200)],
        categories=[dict(id=7, name='cup')],
        annotations=[
            dict(id=k + 1, image_id=1, category_id=7, bbox=b, area=100)
            for k, b in enumerate(boxes)
        ])
    path = folder / 'perfect.json'
    path.write_text(json.dumps(truth))
    boxes = torch.tensor(boxes).float()
    boxes[:, 2:] += boxes[:, :2]
    sample = dict(
        img_id=1,
        ori_shape=(200, 200),
        pred_instances=dict(
            bboxes=boxes,
            scores=torch.linspace(.9, .1, count),
            labels=torch.zeros(count, dtype=torch.int64)))
    return str(path), sample


def evaluate_one(metric, sample, classes=('cup', )):
    metric.dataset_meta = dict(classes=classes)
    metric.process(None, [sample])
    return metric.evaluate(1)


@pytest.mark.parametrize('seed', range(30))
def test_equals_pycocotools(seed, tmp_path, unrounded):
    case = Case(seed)
    metric = CocoMetric(
        case.write(tmp_path),
        metric=['bbox', 'segm'],
        classwise=True,
        metric_items=list(COCO_NAMES))
    got = run(metric, case)
    assert_same(got, {**coco_numbers(case, 'bbox'), **coco_numbers(case,
                                                                   'segm')})
    assert 0 < got['bbox_mAP'] < 1 and got['bbox_mAP'] != got['segm_mAP']


@pytest.mark.parametrize('seed', range(3))
def test_box_areas_as_lvis_takes_them(seed, tmp_path, unrounded):
    case = Case(200 + seed)
    path = case.write(tmp_path)
    got = run(CocoMetric(path, metric='segm', segm_area='box'), case)
    assert_same(got, coco_numbers(case, 'segm', boxed=True))
    assert got != run(CocoMetric(path, metric='segm'), case)


def test_limit_of_100_and_of_1000(tmp_path):
    """Item F: pycocotools reads mAP at 100 and mAP_50 at 1000."""
    path, sample = perfect_boxes(tmp_path, 150)
    got = evaluate_one(CocoMetric(path), sample)
    # Recall ends at 100 / 150, so 67 of 101 recall levels are reached.
    assert got['coco/bbox_mAP'] == round(67 / 101, 3) == .663
    assert got['coco/bbox_mAP_50'] == 1
    last = evaluate_one(CocoMetric(path, use_mp_eval=True), sample)
    assert last['coco/bbox_mAP'] == 1
    chosen = evaluate_one(CocoMetric(path, max_dets=100), sample)
    assert chosen['coco/bbox_mAP_50'] == .663


def test_recall_items_mean_what_they_say(tmp_path):
    """Item F: mmdet names recalls by position, whatever the limits are."""
    path, sample = perfect_boxes(tmp_path, 150)
    metric = CocoMetric(
        path,
        use_mp_eval=True,
        proposal_nums=[300],
        metric_items=['AR@30', 'AR@300', 'AR_s@30', 'AR_l@300'])
    assert evaluate_one(metric, sample) == {
        'coco/bbox_AR@30': .2,
        'coco/bbox_AR@300': 1,
        'coco/bbox_AR_s@30': .2,
        'coco/bbox_AR_l@300': -1
    }


@pytest.mark.parametrize('nums, mp_eval, max_dets, want', [
    ((100, 300, 1000), False, None, (100, 1000, 1000)),
    ((1000, 100, 300), False, None, (100, 1000, 1000)),
    ((1, 10, 100), False, None, (100, 100, 100)),
    ((1, 10, 300), False, None, (300, 300, 300)),
    ((1, 100, 300, 1000), False, None, (100, 300, 1000)),
    ([300], False, None, (300, 300, 300)),
    ([300], True, None, (300, 300, 300)),
    ((100, 300, 1000), True, None, (1000, 1000, 1000)),
    ((100, 300, 1000), False, 300, (300, 300, 300)),
])
def test_limits(nums, mp_eval, max_dets, want):
    metric = CocoMetric(
        proposal_nums=nums, use_mp_eval=mp_eval, max_dets=max_dets)
    assert metric.ap_limits == want


def test_v3det_config_equals_mmdets_multi_process_evaluator(tmp_path, capfd):
    case = Case(40)
    case.categories.sort(key=lambda category: category['id'])
    config = dict(
        ann_file=case.write(tmp_path),
        metric='bbox',
        format_only=False,
        backend_args=None,
        use_mp_eval=True,
        proposal_nums=[300])
    want = run(MMDetCocoMetric(**config), case)
    got = run(METRICS.build(dict(type='apa_mm.CocoMetric', **config)), case)
    assert got == want and len(got) == 6


def test_same_keys_and_values_as_mmdet(tmp_path, capfd):
    case = Case(41)
    # mmdet names classwise rows right only if categories are sorted.
    case.categories.sort(key=lambda category: category['id'])
    config = dict(
        ann_file=case.write(tmp_path),
        metric=['bbox', 'segm', 'proposal'],
        classwise=True)
    want = run(MMDetCocoMetric(**config), case)
    got = run(CocoMetric(**config), case)
    assert set(got) == set(want)
    np.testing.assert_array_equal([got[k] for k in want], list(want.values()))


def test_ground_truth_from_samples(tmp_path, capfd):
    case = Case(42)
    labels = {c['id']: k for k, c in enumerate(case.categories)}
    samples = case.samples()
    for sample in samples:
        sample['instances'] = []
        for entry in case.annotations:
            if entry['image_id'] == sample['img_id']:
                x, y, w, h = entry['bbox']
                sample['instances'].append(
                    dict(
                        bbox=[x, y, x + w, y + h],
                        bbox_label=labels[entry['category_id']],
                        ignore_flag=entry['iscrowd'],
                        mask=entry['segmentation']))
    config = dict(metric=['bbox', 'segm'], classwise=True)
    want = run(MMDetCocoMetric(**config), case, samples)
    got = run(CocoMetric(**config), case, samples)
    np.testing.assert_array_equal([got[k] for k in want], list(want.values()))


def test_classes_of_the_dataset_choose_the_categories(tmp_path, capfd):
    case = Case(43)
    path = case.write(tmp_path)
    kept = {1: 0, 3: 1, 4: 2}
    for pred in case.predictions.values():
        chosen = [int(n) in kept for n in pred['labels']]
        for key in pred:
            pred[key] = pred[key][chosen]
        pred['labels'] = torch.tensor([kept[int(n)] for n in pred['labels']],
                                      dtype=torch.int64)
    case.categories = [case.categories[k] for k in kept]
    got = run(CocoMetric(path, metric=['bbox', 'segm']), case)
    want = run(MMDetCocoMetric(path, metric=['bbox', 'segm']), case)
    assert got == want and got['bbox_mAP'] > 0


def test_sort_categories_numbers_labels_by_id(tmp_path, capfd):
    case = Case(44)
    path = case.write(tmp_path)
    plain = run(CocoMetric(path), case)
    got = run(CocoMetric(path, sort_categories=True), case)
    want = run(MMDetCocoMetric(path, sort_categories=True), case)
    assert got == want != plain


@pytest.mark.parametrize('thresholds', [[.5, .75], .75])
def test_iou_thresholds(tmp_path, thresholds):
    path, sample = perfect_boxes(tmp_path, 4)
    # IoU 0.6 each.
    sample['pred_instances']['bboxes'][:, 2] -= 4
    got = evaluate_one(CocoMetric(path, iou_thrs=thresholds), sample)
    assert got['coco/bbox_mAP_75'] == 0
    assert got['coco/bbox_mAP'] == (.5 if thresholds == [.5, .75] else 0)
    assert got['coco/bbox_mAP_50'] == (1 if thresholds == [.5, .75] else -1)


def test_zero_area_detection_counts_as_wrong(tmp_path):
    """Item A is LVIS only: pycocotools does not drop it."""
    path, sample = perfect_boxes(tmp_path, 2)
    sample['pred_instances']['bboxes'][0, 2:] = \
        sample['pred_instances']['bboxes'][0, :2]
    got = evaluate_one(CocoMetric(path), sample)
    assert got['coco/bbox_mAP_50'] == pytest.approx(51 / 101 / 2, abs=1e-3)


def test_object_with_id_zero_is_matched(tmp_path):
    """Item C: pycocotools takes a match with id 0 for none."""
    path, sample = perfect_boxes(tmp_path, 1)
    truth = json.load(open(path))
    truth['annotations'][0]['id'] = 0
    json.dump(truth, open(path, 'w'))
    assert evaluate_one(CocoMetric(path), sample)['coco/bbox_mAP'] == 1


def test_no_detection_at_all_gives_zero(tmp_path):
    """Item J: mmdet returns no key, which breaks ``save_best``."""
    path, sample = perfect_boxes(tmp_path, 1)
    empty = dict(sample)
    empty['pred_instances'] = {
        k: v[:0]
        for k, v in sample['pred_instances'].items()
    }
    got = evaluate_one(CocoMetric(path), empty)
    assert got['coco/bbox_mAP'] == 0 and len(got) == 6


def test_format_only_writes_mmdets_files(tmp_path, capfd):
    case = Case(45)
    path = case.write(tmp_path)
    for name, metric_class in (('ours', CocoMetric), ('mmdet',
                                                      MMDetCocoMetric)):
        metric = metric_class(
            path, format_only=True, outfile_prefix=str(tmp_path / name))
        assert run(metric, case) == {}
    for kind in ('bbox', 'segm'):
        ours = (tmp_path / f'ours.{kind}.json').read_text()
        assert json.loads(ours) == json.loads(
            (tmp_path / f'mmdet.{kind}.json').read_text())





def test_proposals_keep_no_masks(tmp_path, capfd):
    case = Case(48)
    metric = CocoMetric(case.write(tmp_path), metric=['segm', 'proposal'])
    metric.dataset_meta = case.meta
    metric.process(None, case.samples())
    assert all('masks' not in result for _, result in metric.results)
    want = run(
        MMDetCocoMetric(metric.ann_file, metric=['segm', 'proposal']), case)
    numbers = metric.evaluate(len(case.images))
    assert numbers == {f'coco/{key}': value for key, value in want.items()}



@pytest.mark.parametrize('kwargs, error, text', [
    (dict(metric='box'), KeyError, 'metric should be one of'),
    (dict(metric_items=['AP']), KeyError, "but got 'AP'"),
    (dict(metric_items=['AR@0']), KeyError, "but got 'AR@0'"),
    (dict(proposal_nums=[]), ValueError, 'proposal_nums must hold positive'),
    (dict(max_dets=0), ValueError, r'max_dets must hold .* but got \[0\]'),
    (dict(max_dets=2.5), ValueError, 'max_dets must hold positive whole'),
    (dict(file_client_args={}), RuntimeError, 'backend_args'),
])
def test_bad_arguments(kwargs, error, text):
    with pytest.raises(error, match=text):
        CocoMetric(**kwargs)


def test_samples_without_ground_truth(tmp_path):
    _, sample = perfect_boxes(tmp_path, 1)
    with pytest.raises(ValueError, match="no 'instances' and ann_file is No"):
        evaluate_one(CocoMetric(), sample)
    metric = CocoMetric()
    with pytest.raises(ValueError, match="no 'classes'.*set ann_file"):
        metric.process(None, [sample])


def test_hotcoco_is_missing_or_too_old(monkeypatch):
    import hotcoco
    for version in ('1.2.9', '2.0.0'):
        monkeypatch.setattr(hotcoco, '__version__', version)
        with pytest.raises(
                ImportError,
                match=f"{version} is installed; pip install 'hotcoco>=1.3"):
            CocoMetric()
    monkeypatch.setattr(streaming, 'HAS_HOTCOCO', False)
    with pytest.raises(ImportError, match='hotcoco is not installed; pip'):
        CocoMetric()
