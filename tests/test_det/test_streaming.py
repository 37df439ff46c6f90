import json
import pickle

import hotcoco
import numpy as np
import pytest
import torch
from mmdet.evaluation.metrics import CocoMetric as MMDetCocoMetric
from support import forked
from support import eval_cases
from support.eval_cases import (CUP, HIT, Case, assert_same, evaluate_one,
                                lvis_numbers, one_image, run)

from apa_mm.det import lvis_metric
from apa_mm.det.coco_metric import CocoMetric
from apa_mm.det.lvis_metric import LVISMetric
from apa_mm.det.streaming import to_xywh


@pytest.fixture
def old_numpy(monkeypatch):
    """Give lvis 0.5.3 the ``np.float`` that it was written for."""
    monkeypatch.setattr(np, 'float', float, raising=False)


@pytest.fixture
def unrounded(monkeypatch):
    """Let the metric return all digits."""
    monkeypatch.setattr(lvis_metric, '_formatted', float)
    monkeypatch.setattr(lvis_metric, 'rounded', float)


def test_label_without_category_raises(tmp_path):
    """Item E: hotcoco alone drops it, or raises without the image."""
    with pytest.raises(
            ValueError, match=r'labels must be in \[0, 1\].* image id 1 '
            'reach from 0 to 2; set num_classes'):
        evaluate_one(LVISMetric, tmp_path, [CUP], [(0, .5, HIT), (2, .5, HIT)])


@pytest.mark.parametrize('first', [2**24 + 1, 2**53 - 2, 2**62, 2**63 - 4,
                                   -2**63, -5, 0])
def test_ids_of_any_size_are_exact(tmp_path, first):
    """Item H: hotcoco's float64 rows would let ids above 2**53 meet."""
    truth = dict(
        images=[dict(id=first + k, height=100, width=100) for k in range(4)],
        categories=[
            dict(id=first + 2 - k, name=f'class {k}') for k in range(3)
        ],
        annotations=[
            dict(
                id=first + k,
                image_id=first + k,
                category_id=first + k,
                bbox=[10 * k, 10, 20, 20],
                area=400) for k in range(3)
        ])
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(truth))
    metric = CocoMetric(str(path), classwise=True)
    metric.dataset_meta = dict(classes=[f'class {k}' for k in range(3)])
    # Image 3 has no object, and a wrong detection that comes last.
    for k in range(4):
        x = 10. * min(k, 2)
        pred = dict(
            bboxes=torch.tensor([[x, 10, x + 20, 30]]),
            scores=torch.tensor([.9 if k < 3 else .5]),
            labels=torch.tensor([2 - min(k, 2)]))
        metric.process(
            None, [dict(img_id=first + k, ori_shape=(100, 100),
                        pred_instances=pred)])
    got = metric.evaluate(4)
    assert [got[f'coco/class {k}_precision'] for k in range(3)] == [1, 1, 1]


def test_float_labels_of_an_image_without_proposals(tmp_path):
    path, sample = one_image(tmp_path, [CUP])
    sample['pred_instances']['labels'] = torch.zeros(0)
    for kind in (CocoMetric, LVISMetric):
        metric = kind(path)
        metric.dataset_meta = dict(classes=('cup', 'pan'))
        metric.process(None, [sample])
        assert list(metric.evaluate(1).values())[0] == 0
    _, sample = one_image(tmp_path, [CUP], [(0, .5, HIT)])
    sample['pred_instances']['labels'] = torch.zeros(1)
    for kind in (CocoMetric, LVISMetric):
        out = tmp_path / kind.__name__
        metric = kind(path, outfile_prefix=str(out))
        metric.dataset_meta = dict(classes=('cup', 'pan'))
        metric.process(None, [sample])
        assert list(metric.evaluate(1).values())[0] > .9
        found, = json.loads(out.with_suffix('.bbox.json').read_text())
        assert found['category_id'] == 3
    sample['pred_instances']['labels'] = torch.tensor([.5])
    with pytest.raises(ValueError, match='image id 1 have 0.5'):
        metric.process(None, [sample])


@pytest.mark.parametrize('score, box', [(float('nan'), HIT),
                                        (.5, [float('nan'), 10., 30., 30.]),
                                        (.5, [10., 10., float('inf'), 30.])])
def test_numbers_that_are_not_finite_raise(tmp_path, score, box):
    """Item I: hotcoco alone matches a NaN box with anything."""
    with pytest.raises(ValueError, match='finite, but the .* image id 1 hold'):
        evaluate_one(LVISMetric, tmp_path, [CUP], [(0, score, box)])


def test_masks_that_cannot_match_are_not_encoded(tmp_path, monkeypatch):
    case = Case(3)
    path = case.write(tmp_path)
    full = run(
        LVISMetric(path, metric='segm'), case, case.samples(encoded=True))
    encoded = []
    encode = hotcoco.mask.encode

    def counting(mask):
        encoded.append(1)
        return encode(mask)

    monkeypatch.setattr(hotcoco.mask, 'encode', counting)
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
import json, os, pickle, sys
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
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    case = Case(6, num_images=13)
    path = case.write(tmp_path)
    both = dict(ann_file=path, metric=['bbox', 'segm'], classwise=True)
    metrics = [('lvis', both), ('coco', both),
               ('coco', dict(both, metric=['bbox', 'proposal'])),
               ('lvis', dict(both, max_dets_per_class=9, dilation_ratio=.02))]
    # 11 of 13 images are seen, so one rank gets an image twice.
    job = dict(
        metrics=metrics, meta=case.meta, samples=case.samples()[:11])
    (tmp_path / 'job.pkl').write_bytes(pickle.dumps(job))
    ranks = [
        forked.Script(['-c', RANK_SCRIPT, rank, tmp_path], cwd=tmp_path)
        for rank in (0, 1)
    ]
    for rank in ranks:
        done = rank.wait(timeout=150)
        assert done.returncode == 0, done.stderr[-2000:]
    got = [json.loads((tmp_path / f'rank{r}.json').read_text())
           for r in (0, 1)]
    assert str(got[0]) == str(got[1])
    for (kind, config), numbers in zip(metrics, got[0], strict=True):
        metric = dict(lvis=LVISMetric, coco=CocoMetric)[kind](**config)
        want = run(metric, case, case.samples()[:11])
        want = {f'{kind}/{key}': value for key, value in want.items()}
        assert str(numbers) == str(want)


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


def test_box_sizes_are_mmdets():
    """Item H: float32 differences have other last digits."""
    boxes = np.random.default_rng(0).uniform(0, 900, (50, 4))
    boxes = boxes.astype(np.float32)
    want = [MMDetCocoMetric().xyxy2xywh(box) for box in boxes]
    np.testing.assert_array_equal(to_xywh(boxes), want)
    assert (boxes[:, 2:] - boxes[:, :2] != to_xywh(boxes)[:, 2:]).any()
