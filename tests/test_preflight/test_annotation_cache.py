"""The checks before training read a file once, for the data sets as well."""
import json
import os

import pytest
from mmengine.config import Config
from support.tiny_jobs import (coco_annotations, write_detection_config,
                               write_detection_data)

from apa_mm.preflight.job import report_datasets
from apa_mm.utils.imports import HAS_MMDET

pytestmark = pytest.mark.skipif(not HAS_MMDET, reason='mmdet is missing')


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    data = write_detection_data(tmp_path / 'data')
    cfg = Config.fromfile(write_detection_config(tmp_path / 'tiny.py', data))
    for dataset in (cfg.train_dataloader.dataset.dataset,
                    cfg.val_dataloader.dataset, cfg.test_dataloader.dataset):
        dataset.type = 'apa_mm.CocoDataset'
    return cfg


@pytest.fixture
def reads(monkeypatch):
    """Count how often a file is parsed."""
    from apa_mm.data import annotations
    paths, parse = [], annotations.parse_annotations

    def counted(data):
        paths.append(len(data))
        return parse(data)

    monkeypatch.setattr(annotations, 'parse_annotations', counted)
    return paths


def build(job):
    from mmdet.registry import DATASETS
    found = [
        DATASETS.build(dict(item, _scope_='mmdet', pipeline=[]))
        for item in (job.train_dataloader.dataset.dataset,
                     job.val_dataloader.dataset)
    ]
    return [item.get_data_info(0) for item in found]


def test_one_pass_serves_checks_and_data_sets(job, reads):
    first = report_datasets(job)
    built = build(job)
    assert not first.problems and len(reads) == 1
    assert report_datasets(job) == first and build(job) == built
    assert len(reads) == 1
    job.train_dataloader.dataset.dataset.type = 'CocoDataset'
    job.val_dataloader.dataset.type = 'CocoDataset'
    assert build(job) == built


def test_each_setting_of_a_check_counts(job, reads):
    content = coco_annotations()
    content['annotations'][1]['segmentation'] = []
    path = job.val_evaluator.ann_file
    with open(path, 'w') as file:
        json.dump(content, file)
    assert not report_datasets(job).problems
    job.val_evaluator.metric = ['bbox', 'segm']
    assert 'segmentation' in report_datasets(job).problems[0]
    job.val_evaluator.metric = 'bbox'
    for loader in (job.train_dataloader.dataset, job.val_dataloader,
                   job.test_dataloader):
        loader.dataset.metainfo.classes = ('cube', 'ball', 'rings')
    assert 'rings' in str(report_datasets(job).problems)


def test_layout_and_metric_of_a_check_count(job):
    content = coco_annotations()
    del content['images'][0]['coco_url']
    del content['categories'][0]['frequency']
    with open(job.val_evaluator.ann_file, 'w') as file:
        json.dump(content, file)
    assert not report_datasets(job).problems
    job.test_dataloader.dataset.type = 'apa_mm.LVISV1Dataset'
    found, = report_datasets(job).problems
    assert "lack 'coco_url'" in found and 'test apa_mm.LVISV1Dataset' in found
    job.test_dataloader.dataset.type = 'apa_mm.CocoDataset'
    job.test_evaluator.type = 'apa_mm.LVISMetric'
    found, = report_datasets(job).problems
    assert "lack 'frequency'" in found


def prepared(monkeypatch):
    from apa_mm.det.datasets import CachedAnnotations
    calls = []
    monkeypatch.setattr(CachedAnnotations, 'prepare',
                        lambda *args, **kwargs: calls.append(args))
    return calls


def test_only_what_is_sound_and_used_is_written(job, monkeypatch):
    calls = prepared(monkeypatch)
    report_datasets(job)
    assert len(calls) == 3
    for loader in (job.train_dataloader.dataset, job.val_dataloader,
                   job.test_dataloader):
        loader.dataset.serialize_data = False
    report_datasets(job)
    assert len(calls) == 3
    job.val_dataloader.dataset.serialize_data = True
    content = coco_annotations()
    content['images'][0]['id'] = 2
    with open(job.val_evaluator.ann_file, 'w') as file:
        json.dump(content, file)
    assert report_datasets(job).problems and len(calls) == 3


def test_a_file_that_changes_meanwhile_is_a_problem(job, monkeypatch):
    def read(path):
        raise OSError('changed')

    monkeypatch.setattr('apa_mm.preflight.data_checks.read_annotations', read)
    found, = report_datasets(job).problems
    assert 'the file cannot be read (changed); mend that' in found


def test_a_changed_file_and_lost_images_are_seen(job, reads):
    path = job.val_evaluator.ann_file
    report_datasets(job)
    image = next(os.scandir(os.path.join(os.path.dirname(path), 'images')))
    os.remove(image.path)
    assert image.name in str(report_datasets(job).problems)
    assert len(reads) == 1
    with open(path, 'w') as file:
        json.dump(dict(coco_annotations(), annotations=[dict(id=1)]), file)
    assert "lack 'image_id'" in str(report_datasets(job).problems)


def test_without_a_cache_the_checks_are_the_same(job, reads, monkeypatch,
                                                 tmp_path):
    cached = report_datasets(job)
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    assert report_datasets(job) == cached and len(reads) == 2


def test_a_data_set_that_cannot_be_built_is_left_to_the_runner(job):
    job.val_dataloader.dataset.unknown = 1
    assert report_datasets(job).problems == []
