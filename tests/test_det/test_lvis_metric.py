import json
import logging
import subprocess
import sys
from pathlib import Path

import eval_cases
import numpy as np
import pytest
import torch
from eval_cases import Case, lvis_numbers, run
from mmdet.evaluation.metrics import LVISMetric as MMDetLVISMetric
from mmdet.registry import METRICS

from apa_mm.det import eval_fallback, lvis_metric
from apa_mm.det.lvis_metric import LVISMetric

AP_KEYS = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'APr', 'APc', 'APf')
# Both sides add the same float64 numbers in the same order.
TOLERANCE = 1e-9


@pytest.fixture
def old_numpy(monkeypatch):
    """Give lvis 0.5.3 the ``np.float`` that it was written for."""
    monkeypatch.setattr(np, 'float', float, raising=False)


@pytest.fixture
def unrounded(monkeypatch):
    """Let the metric return all digits."""
    monkeypatch.setattr(lvis_metric, '_formatted', float)
    monkeypatch.setattr(lvis_metric, 'rounded', float)


def assert_same(got, want, keys=None):
    for key in keys or got:
        assert got[key] == pytest.approx(
            want[key], abs=TOLERANCE, rel=0, nan_ok=True), key


def one_image(folder, objects=(), found=(), image=(), **changes):
    """Write a file with one image and categories 3 (label 0) and 1 (label 1).

    Objects are (category id, xywh) with further keys; found are
    (label, score, xyxy).
    """
    entry = dict(
        id=changes.get('image_id', 1),
        height=100,
        width=100,
        neg_category_ids=[1, 3],
        not_exhaustive_category_ids=[])
    entry.update(image)
    truth = dict(
        images=[entry],
        categories=[
            dict(id=3, name='cup', frequency='f'),
            dict(id=1, name='pan', frequency='r')
        ],
        annotations=[])
    for k, (category, box, *more) in enumerate(objects):
        annotation = dict(
            id=k + 1,
            image_id=entry['id'],
            category_id=category,
            bbox=box,
            area=box[2] * box[3])
        annotation.update(*more)
        truth['annotations'].append(annotation)
    path = folder / 'one.json'
    path.write_text(json.dumps(truth))
    sample = dict(
        img_id=entry['id'],
        ori_shape=(100, 100),
        pred_instances=dict(
            bboxes=torch.tensor([f[2] for f in found]).reshape(-1, 4).float(),
            scores=torch.tensor([f[1] for f in found]),
            labels=torch.tensor([f[0] for f in found], dtype=torch.int64)))
    return str(path), sample


def evaluate_one(folder, objects, found, metric_class=LVISMetric, **kwargs):
    image = kwargs.pop('image', {})
    image_id = kwargs.pop('image_id', 1)
    path, sample = one_image(folder, objects, found, image, image_id=image_id)
    metric = metric_class(path, **kwargs)
    metric.dataset_meta = dict(classes=('cup', 'pan'))
    metric.process(None, [sample])
    return metric.evaluate(1)


CUP = (3, [10, 10, 20, 20])
HIT = [10., 10., 30., 30.]


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
    got = evaluate_one(tmp_path, [CUP], [flat, (0, .5, HIT)])
    assert got['lvis/bbox_AP'] == 1
    # 300 flat boxes fill the cap, so the right one is the 301st.
    got = evaluate_one(tmp_path, [CUP], [flat] * 300 + [(0, .5, HIT)])
    assert got['lvis/bbox_AP'] == 0


def test_zero_area_object_is_dropped(tmp_path):
    """Item B: hotcoco alone counts it as missed."""
    flat = (3, [50, 50, 0, 20])
    got = evaluate_one(tmp_path, [CUP, flat], [(0, .5, HIT)])
    assert got['lvis/bbox_AP'] == 1
    # It does not make its category present either.
    pan = (1, [50, 50, 0, 20])
    got = evaluate_one(
        tmp_path, [CUP, pan], [(0, .5, HIT), (1, .9, HIT)],
        image=dict(neg_category_ids=[]), classwise=True)
    assert np.isnan(got['lvis/pan_precision'])


def test_object_with_id_zero_is_matched(tmp_path):
    """Item C: lvis-api takes a match with id 0 for none."""
    got = evaluate_one(tmp_path, [(*CUP, dict(id=0))], [(0, .5, HIT)])
    assert got['lvis/bbox_AP'] == 1


@pytest.mark.parametrize('key, ap', [('iscrowd', .5), ('ignore', 1.)])
def test_ignore_counts_and_iscrowd_does_not(tmp_path, old_numpy, key, ap):
    """Item D: hotcoco alone does the reverse."""
    other = (3, [60, 60, 20, 20], {key: 1})
    found = [(0, .9, HIT), (0, .8, [60., 60., 80., 80.]),
             (0, .7, [60., 60., 80., 81.])]
    got = evaluate_one(tmp_path, [CUP, other], found)
    reference = evaluate_one(
        tmp_path, [CUP, other], found, metric_class=MMDetLVISMetric)
    assert got == {k: reference[k] for k in got}
    got = evaluate_one(tmp_path, [CUP, other], found[:1])
    assert got['lvis/bbox_AP'] == pytest.approx(ap, abs=.01)


def test_label_without_category_raises(tmp_path):
    """Item E: hotcoco alone drops it, or raises without the image."""
    with pytest.raises(
            ValueError, match=r'labels must be in \[0, 1\].* image id 1 '
            'reach from 0 to 2; set num_classes'):
        evaluate_one(tmp_path, [CUP], [(0, .5, HIT), (2, .5, HIT)])


def test_labels_follow_file_order(tmp_path):
    """Item G: hotcoco lists category ids sorted; the file has 3 before 1."""
    got = evaluate_one(
        tmp_path, [CUP], [(0, .5, HIT), (1, .9, HIT)], classwise=True)
    assert got['lvis/cup_precision'] == 1
    assert np.isnan(got['lvis/pan_precision'])
    assert got['lvis/bbox_APf'] == 1 and got['lvis/bbox_APr'] == -1


def test_large_image_ids_and_float64_boxes(tmp_path):
    """Item H: float32 rows round image ids from 2**24 on."""
    got = evaluate_one(
        tmp_path, [CUP], [(0, .5, HIT)], image_id=2**24 + 1)
    assert got['lvis/bbox_AP'] == 1


@pytest.mark.parametrize('score, box', [(float('nan'), HIT),
                                        (.5, [float('nan'), 10., 30., 30.]),
                                        (.5, [10., 10., float('inf'), 30.])])
def test_numbers_that_are_not_finite_raise(tmp_path, score, box):
    """Item I: hotcoco alone matches a NaN box with anything."""
    with pytest.raises(ValueError, match='finite, but the .* image id 1 hold'):
        evaluate_one(tmp_path, [CUP], [(0, score, box)])


@pytest.mark.parametrize('backend', ['hotcoco', 'lvis'])
def test_no_detection_at_all_gives_zero(tmp_path, backend):
    """Item J: mmdet returns no key, which breaks ``save_best``."""
    got = evaluate_one(tmp_path, [CUP], [], backend=backend)
    assert got['lvis/bbox_AP'] == 0 and len(got) == 9


def test_classwise_has_classes_without_objects(tmp_path, caplog):
    """Item K: hotcoco's own table leaves them out."""
    with caplog.at_level(logging.INFO, logger='mmengine'):
        got = evaluate_one(tmp_path, [CUP], [(0, .5, HIT)], classwise=True)
    assert np.isnan(got['lvis/pan_precision'])
    assert set(got) >= {'lvis/cup_precision', 'lvis/pan_precision'}


def test_equal_iou_is_decided_by_file_order(tmp_path, old_numpy):
    """The order of an image's objects matters when IoUs tie."""
    objects = [(3, [40, 0, 50, 50], dict(id=9)), (3, [20, 0, 50, 50],
                                                  dict(id=4))]
    found = [(0, .9, [30., 0., 80., 50.]), (0, .8, [20., 0., 70., 50.])]
    for pair in (objects, objects[::-1]):
        got = evaluate_one(tmp_path, pair, found)
        want = evaluate_one(
            tmp_path, pair, found, metric_class=MMDetLVISMetric)
        assert got == want
    first = evaluate_one(tmp_path, objects, found)
    assert first != evaluate_one(tmp_path, objects[::-1], found)


def test_masks_that_cannot_match_are_not_encoded(tmp_path, monkeypatch):
    case = Case(3)
    path = case.write(tmp_path)
    from apa_mm.det import mask_rle
    full = run(
        LVISMetric(path, metric='segm'), case, case.samples(encoded=True))
    encoded = []
    encode = mask_rle._encoder()

    def counting(mask):
        encoded.append(1)
        return encode(mask)

    monkeypatch.setattr(mask_rle, '_encoder', lambda: counting)
    assert run(LVISMetric(path, metric='segm'), case) == full
    total = sum(len(p['scores']) for p in case.predictions.values())
    assert 0 < len(encoded) < .8 * total


def test_images_count_once_and_unseen_ones_as_missed(tmp_path, old_numpy,
                                                     unrounded):
    case = Case(4)
    metric = LVISMetric(case.write(tmp_path), metric=['bbox', 'segm'])
    samples = case.samples()
    # The first sample was wrong the first time.
    wrong = dict(samples[0], pred_instances=samples[2]['pred_instances'])
    got = run(metric, case, [wrong, *samples[:8], *samples[2:5]])
    for image_id in list(case.predictions)[8:]:
        case.predictions[image_id] = {
            key: value[:0]
            for key, value in case.predictions[image_id].items()
        }
    assert_same(got, {
        **lvis_numbers(case, 'bbox'),
        **lvis_numbers(case, 'segm')
    })


def test_state_is_gone_after_evaluate(tmp_path):
    case = Case(5)
    metric = LVISMetric(case.write(tmp_path))
    first = run(metric, case)
    assert run(metric, case, case.samples()[:1]) != first
    assert run(metric, case) == first


def test_metric_without_any_image_gives_zero(tmp_path):
    path, _ = one_image(tmp_path, [CUP])
    metric = LVISMetric(path)
    metric.dataset_meta = dict(classes=('cup', 'pan'))
    assert metric.evaluate(1)['lvis/bbox_AP'] == 0


RANK_SCRIPT = """
import json, pickle, sys
import torch.distributed as dist
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group('gloo', init_method=f'file://{folder}/store',
                        rank=rank, world_size=2)
from apa_mm.det.lvis_metric import LVISMetric
from apa_mm.det.coco_metric import CocoMetric
with open(f'{folder}/job.pkl', 'rb') as file:
    job = pickle.load(file)
out = []
for kind, config in job['metrics']:
    metric = dict(lvis=LVISMetric, coco=CocoMetric)[kind](**config)
    metric.dataset_meta = job['meta']
    samples = job['samples']
    # As DefaultSampler does: round robin, padded from the front.
    padded = samples + samples[:len(samples) % 2]
    for sample in padded[rank::2]:
        metric.process(None, [sample])
    out.append(metric.evaluate(len(samples)))
with open(f'{folder}/rank{rank}.json', 'w') as file:
    json.dump(out, file)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    import pickle

    from apa_mm.det.coco_metric import CocoMetric
    case = Case(6, num_images=13)
    path = case.write(tmp_path)
    both = dict(ann_file=path, metric=['bbox', 'segm'], classwise=True)
    metrics = [('lvis', both), ('coco', both),
               ('lvis', dict(both, backend='lvis')),
               ('coco', dict(both, metric=['bbox', 'proposal']))]
    # 11 of 13 images are seen, so one rank gets an image twice.
    job = dict(
        metrics=metrics, meta=case.meta, samples=case.samples()[:11])
    (tmp_path / 'job.pkl').write_bytes(pickle.dumps(job))
    ranks = [
        subprocess.Popen(
            [sys.executable, '-c', RANK_SCRIPT,
             str(rank), str(tmp_path)],
            cwd=tmp_path,
            env=dict(
                PATH='/usr/bin:/bin',
                OMP_NUM_THREADS='1',
                PYTHONPATH=str(Path(lvis_metric.__file__).parents[2])),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE) for rank in (0, 1)
    ]
    for rank in ranks:
        _, errors = rank.communicate(timeout=150)
        assert rank.returncode == 0, errors.decode()[-2000:]
    got = [json.loads((tmp_path / f'rank{r}.json').read_text())
           for r in (0, 1)]
    assert str(got[0]) == str(got[1])
    for (kind, config), numbers in zip(metrics, got[0], strict=True):
        metric = dict(lvis=LVISMetric, coco=CocoMetric)[kind](**config)
        want = run(metric, case, case.samples()[:11])
        want = {f'{kind}/{key}': value for key, value in want.items()}
        assert str(numbers) == str(want)


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


@pytest.mark.parametrize('kwargs, error, text', [
    (dict(ann_file=None), ValueError, 'needs ann_file, but got None'),
    (dict(metric='box'), KeyError, 'metric should be one of'),
    (dict(metric='proposal_fast'), ValueError, "use metric='proposal'"),
    (dict(metric_items=['mAP']), KeyError, "but got 'mAP'"),
    (dict(segm_area='area'), ValueError, "segm_area must be one of"),
    (dict(backend='pycocotools'), ValueError, 'backend must be one of'),
    (dict(format_only=True), ValueError, 'needs outfile_prefix'),
    (dict(ann_file='no/where.json'), FileNotFoundError, 'no/where.json'),
])
def test_bad_arguments(tmp_path, kwargs, error, text):
    path, _ = one_image(tmp_path, [CUP])
    with pytest.raises(error, match=text):
        LVISMetric(**{'ann_file': path, **kwargs})


def test_half_precision_predictions(tmp_path):
    path, sample = one_image(tmp_path, [CUP], [(0, .5, HIT)])
    pred = sample['pred_instances']
    pred['bboxes'] = pred['bboxes'].bfloat16()
    pred['scores'] = pred['scores'].half()
    metric = LVISMetric(path)
    metric.process(None, [sample])
    assert metric.evaluate(1)['lvis/bbox_AP'] == 1


def test_masks_are_demanded_and_measured(tmp_path):
    case = Case(11)
    path = case.write(tmp_path)
    samples = case.samples()
    del samples[0]['pred_instances']['masks']
    with pytest.raises(ValueError, match="metric 'segm' needs masks, but"):
        run(LVISMetric(path, metric='segm'), case, samples)
    samples = case.samples()
    masks = samples[0]['pred_instances']['masks']
    samples[0]['pred_instances']['masks'] = masks[:, :-1]
    size = f'{eval_cases.HEIGHT - 1} x {eval_cases.WIDTH} pixels'
    with pytest.raises(ValueError, match=f'{size}.*rescale=True'):
        run(LVISMetric(path, metric='segm'), case, samples)


def test_image_of_another_file(tmp_path):
    case = Case(12)
    path = case.write(tmp_path)
    sample = dict(case.samples()[0], img_id=5000)
    with pytest.raises(ValueError, match='5000 is not in .*truth.json'):
        run(LVISMetric(path), case, [sample])
