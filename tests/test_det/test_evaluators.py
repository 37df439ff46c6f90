"""Our metrics under every evaluator that mmdet's run under."""
import pickle

import numpy as np
import pytest
from mmdet.evaluation import MultiDatasetsEvaluator
from mmdet.evaluation.metrics import CocoMetric as MMDetCocoMetric
from mmdet.evaluation.metrics import DumpDetResults
from mmengine.evaluator import DumpResults, Evaluator
from support import forked
from support.eval_cases import Case, run

from apa_mm.det.coco_metric import CocoMetric
from apa_mm.det.lvis_metric import LVISMetric


@pytest.fixture
def two_sets(tmp_path):
    """Return two cases whose image ids meet, and their files."""
    cases, paths = [], []
    for seed, name in ((60, 'a'), (61, 'b')):
        case = Case(seed, num_images=6)
        folder = tmp_path / name
        folder.mkdir()
        ids = {image['id']: k for k, image in enumerate(case.images)}
        for image in case.images:
            image['id'] = ids[image['id']]
        for entry in case.annotations:
            entry['image_id'] = ids[entry['image_id']]
        case.predictions = {ids[i]: p for i, p in case.predictions.items()}
        case.categories = [
            dict(item, name=f'class {k}')
            for k, item in enumerate(case.categories)
        ]
        cases.append(case)
        paths.append(case.write(folder))
    return cases, paths


def numbers_of(evaluator, meta, samples):
    evaluator.dataset_meta = meta
    for start in range(0, len(samples), 4):
        evaluator.process(samples[start:start + 4])
    return evaluator.evaluate(len(samples))


@pytest.mark.parametrize('listed', [False, True])
@pytest.mark.parametrize('epochs', [1, 2])
def test_two_validation_sets(two_sets, listed, epochs, capfd):
    cases, paths = two_sets
    samples = cases[0].samples() + cases[1].samples()
    meta = dict(cases[0].meta, cumulative_sizes=[6, 12])
    # mmdet's concatenation lists its members' meta where they differ.
    meta = [meta, dict(meta, palette=[])] if listed else meta
    got = {}
    for kind in (MMDetCocoMetric, CocoMetric):
        metrics = [kind(path, metric=['bbox', 'segm']) for path in paths]
        evaluator = MultiDatasetsEvaluator(metrics, ['a', 'b'])
        for _ in range(epochs):
            got[kind] = numbers_of(evaluator, meta, samples)
    assert got[CocoMetric] == got[MMDetCocoMetric]
    assert len(got[CocoMetric]) == 24
    alone = run(LVISMetric(paths[1]), cases[1])
    metrics = [LVISMetric(path) for path in paths]
    both = numbers_of(
        MultiDatasetsEvaluator(metrics, ['a', 'b']), meta, samples)
    assert {k: both[f'b/lvis/{k}'] for k in alone} == alone


def with_truth(case):
    labels = {c['id']: k for k, c in enumerate(case.categories)}
    samples = case.samples()
    for sample in samples:
        sample['instances'] = [
            dict(
                bbox=[x, y, x + w, y + h],
                bbox_label=labels[entry['category_id']],
                ignore_flag=entry['iscrowd']) for entry in case.annotations
            if entry['image_id'] == sample['img_id']
            for x, y, w, h in [entry['bbox']]
        ]
    return samples


def test_one_metric_for_a_concatenation(two_sets, tmp_path):
    cases, paths = two_sets
    samples = with_truth(cases[0]) + with_truth(cases[1])
    meta = dict(cases[0].meta, cumulative_sizes=[6, 12])
    got = numbers_of(Evaluator([CocoMetric()]), meta, samples)
    # The same images under ids that do not meet.
    for index, sample in enumerate(samples):
        sample['img_id'] = index
    want = numbers_of(Evaluator([MMDetCocoMetric()]), meta, samples)
    assert got == want and got['coco/bbox_mAP'] > 0


def test_ids_that_meet_in_one_file_are_refused(two_sets):
    cases, paths = two_sets
    meta = dict(cases[0].meta, cumulative_sizes=[6, 12])
    with pytest.raises(
            ValueError, match='image id 0 comes from more than one of.*'
            "type='MultiDatasetsEvaluator'"):
        numbers_of(
            Evaluator([CocoMetric(paths[0])]), meta,
            cases[0].samples() + cases[1].samples())


@pytest.mark.parametrize('dump', [DumpResults, DumpDetResults])
@pytest.mark.parametrize('kind', [CocoMetric, LVISMetric])
def test_dumped_results_evaluate_alike(tmp_path, dump, kind):
    case = Case(62, num_images=6)
    path = case.write(tmp_path)
    want = run(kind(path, metric=['bbox', 'segm']), case)
    out = str(tmp_path / 'dump.pkl')
    online = Evaluator([dump(out), kind(path, metric=['bbox', 'segm'])])
    got = numbers_of(online, case.meta, case.samples())
    offline = Evaluator([kind(path, metric=['bbox', 'segm'])])
    offline.dataset_meta = case.meta
    with open(out, 'rb') as file:
        again = offline.offline_evaluate(pickle.load(file), chunk_size=2)
    prefix = kind.default_prefix
    np.testing.assert_equal(got, {f'{prefix}/{k}': v for k, v in want.items()})
    np.testing.assert_equal(again, got)


def test_a_foreign_evaluator_is_told(tmp_path):
    case = Case(63, num_images=3)
    metric = CocoMetric(case.write(tmp_path))
    metric.dataset_meta = case.meta
    metric.process(None, case.samples())
    with pytest.raises(RuntimeError, match='was called without evaluate'):
        metric.compute_metrics(metric.results)


RANK_SCRIPT = """
import pickle, sys
import torch.distributed as dist
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group('gloo', init_method=f'file://{folder}/store',
                        rank=rank, world_size=2)
from mmdet.evaluation import MultiDatasetsEvaluator
from apa_mm.det.coco_metric import CocoMetric
with open(f'{folder}/job.pkl', 'rb') as file:
    paths, meta, samples = pickle.load(file)
evaluator = MultiDatasetsEvaluator(
    [CocoMetric(path, metric=['bbox', 'segm']) for path in paths], ['a', 'b'])
evaluator.dataset_meta = meta
padded = samples + samples[:len(samples) % 2]  # as DefaultSampler pads
for sample in padded[rank::2]:
    evaluator.process([sample])
with open(f'{folder}/rank{rank}.pkl', 'wb') as file:
    pickle.dump(evaluator.evaluate(len(samples)), file)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_validation_sets_on_two_ranks(two_sets, tmp_path):
    cases, paths = two_sets
    samples = cases[0].samples() + cases[1].samples()[:5]
    meta = dict(cases[0].meta, cumulative_sizes=[6, 11])
    metrics = [CocoMetric(path, metric=['bbox', 'segm']) for path in paths]
    want = numbers_of(
        MultiDatasetsEvaluator(metrics, ['a', 'b']), meta, samples)
    (tmp_path / 'job.pkl').write_bytes(pickle.dumps((paths, meta, samples)))
    ranks = [
        forked.Script(['-c', RANK_SCRIPT, rank, tmp_path]) for rank in (0, 1)
    ]
    for rank, process in enumerate(ranks):
        done = process.wait(timeout=150)
        assert done.returncode == 0, done.stderr[-2000:]
        got = pickle.loads((tmp_path / f'rank{rank}.pkl').read_bytes())
        assert got == want and len(got) == 24
