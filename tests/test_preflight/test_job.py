import argparse
import glob
import json
import os
import os.path as osp
import pickle
import re
from importlib.util import find_spec

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from support.tiny_jobs import (CLASSES, coco_annotations,
                               write_detection_config, write_detection_data)

from apa_mm.preflight import data_checks, job as preflight
from apa_mm.preflight.job import (InputError, check_checkpoint, check_config,
                                  is_rank_0, report_datasets)
from apa_mm.utils.imports import HAS_MMDET, HAS_MMPRETRAIN

needs_mmdet = pytest.mark.skipif(not HAS_MMDET, reason='mmdet is missing')


@pytest.fixture
def job(tmp_path):
    data = write_detection_data(tmp_path / 'data')
    path = write_detection_config(tmp_path / 'tiny.py', data)
    return Config.fromfile(path)


def rewrite(job, **sections):
    path = osp.join(job.val_dataloader.dataset.data_root, 'ann.json')
    with open(path, 'w') as file:
        json.dump(dict(coco_annotations(), **sections), file)


def error_of(job, **kwargs):
    """Return the problems, which check_dataset tells as well."""
    with pytest.raises(InputError) as caught:
        check_config(job, **kwargs)
    lines = str(caught.value).splitlines()
    assert set(lines) <= set(report_datasets(job).problems)
    return str(caught.value)


@needs_mmdet
def test_a_sound_job_passes(job):
    check_config(job)


@needs_mmdet
def test_every_problem_is_told_at_once(job):
    job.fp16 = dict(loss_scale=512.0)
    job.optim_wraper = dict()
    job.train_dataloader.dataset.dataset.ann_file = 'no.json'
    lines = error_of(job).splitlines()
    assert len(lines) == 3
    assert "'fp16' is of the 2.x libraries" in lines[0]
    assert "did you mean 'optim_wrapper'" in lines[1]
    assert lines[2].endswith(
        '/data/no.json (train CocoDataset): the annotation file does not '
        'exist; set data_root and ann_file to where it is')


@needs_mmdet
def test_a_problem_of_the_file_names_file_split_and_reader(job):
    rewrite(job, categories=[])
    first, second = error_of(job, splits=('train', 'val')).splitlines()
    assert first.endswith(
        "/data/ann.json (train CocoDataset): 'categories' is empty; nothing "
        'could be read from it, so check that it is the right file')
    assert '(val CocoDataset)' in second


@needs_mmdet
@pytest.mark.parametrize('text', ['{"images": [', '', '\x80\x81 binary'])
def test_a_file_that_is_not_json(job, text):
    path = osp.join(job.val_dataloader.dataset.data_root, 'ann.json')
    with open(path, 'wb') as file:
        file.write(text.encode('latin-1'))
    assert 'it is not JSON in UTF-8 (' in error_of(job)


@needs_mmdet
def test_images_that_are_not_there(job):
    job.val_dataloader.dataset.data_prefix = dict(img='')
    assert '4 of its 4 images are not in' in error_of(job, splits=('val', ))
    check_config(job, splits=('train', ))


@needs_mmdet
def test_lvis_keys_are_asked_for_by_the_metric(job):
    images = coco_annotations()['images']
    for image in images:
        del image['neg_category_ids']
    rewrite(job, images=images)
    check_config(job)
    job.val_evaluator = dict(type='apa_mm.LVISMetric', metric='bbox')
    assert "4 of 4 entries of 'images' lack 'neg_category_ids'" in error_of(
        job)


@needs_mmdet
def test_num_classes_against_metainfo(job):
    job.model.roi_head.bbox_head.num_classes = 4
    assert error_of(job, splits=('train', )).endswith(
        "(train CocoDataset): the dataset's metainfo has 3 classes, but "
        'model.roi_head.bbox_head.num_classes is 4; set num_classes=3 or the '
        "dataset's metainfo=dict(classes=...)")


@needs_mmdet
def test_num_classes_against_the_file_where_no_class_has_a_name(job):
    dataset = job.train_dataloader.dataset.dataset
    dataset.type = 'V3DetDataset'
    del dataset['metainfo']
    check_config(job, splits=('train', ))
    job.model.roi_head.bbox_head = [
        dict(num_classes=3), dict(num_classes=5)
    ]
    assert ('it has 3 categories, but model.roi_head.bbox_head[1].num_classes '
            'is 5') in error_of(job, splits=('train', ))


@needs_mmdet
@pytest.mark.parametrize('model', [
    dict(bbox_head=dict(num_classes=256), language_model=dict()),
    dict(
        bbox_head=dict(num_classes=1),
        roi_head=dict(bbox_head=dict(num_classes=3))),
    dict(semantic_head=dict(num_classes=50)),
])
def test_heads_that_have_another_count_by_right(job, model):
    job.pop('model')
    job.model = model
    check_config(job)


@needs_mmdet
def test_the_default_class_names_do_not_fit_ones_own_data(job):
    # The commonest mistake: a file of one's own, read as COCO's 80 classes.
    del job.train_dataloader.dataset.dataset['metainfo']
    text = error_of(job, splits=('train', ))
    assert 'has 80 classes, but model.roi_head' in text
    assert "80 of 80 classes of the dataset's metainfo are not among its 3 " \
        'categories (classes: person, bicycle, car, ...' in text


@needs_mmdet
def test_categories_without_images_are_logged(job, monkeypatch):
    logged = []
    monkeypatch.setattr(preflight, 'print_log',
                        lambda message, **kwargs: logged.append(message))
    annotations = coco_annotations()['annotations'][:2]
    rewrite(job, annotations=annotations)
    check_config(job)
    assert any('1 of 3 categories have no object' in line
               and line.endswith(CLASSES[2]) for line in logged)


@needs_mmdet
def test_one_parse_serves_all_splits(job, monkeypatch):
    calls = []
    read = data_checks.read_annotations
    monkeypatch.setattr(data_checks, 'read_annotations',
                        lambda path: calls.append(1) or read(path))
    check_config(job)
    assert len(calls) == 1


@needs_mmdet
def test_only_rank_0_reads_files(job, monkeypatch):
    job.launcher = 'pytorch'
    job.train_dataloader.dataset.dataset.ann_file = 'no.json'
    monkeypatch.setenv('RANK', '1')
    assert not is_rank_0(job)
    check_config(job)
    monkeypatch.setenv('RANK', '0')
    assert is_rank_0(job)
    assert 'no.json' in error_of(job)


def checkpoint_job(path, **kwargs):
    return Config(dict(dict(load_from=str(path)), **kwargs))


def test_a_checkpoint_that_is_not_there(tmp_path):
    path = tmp_path / 'no.pth'
    with pytest.raises(InputError, match='no.pth does not exist or is no'):
        check_checkpoint(checkpoint_job(path))
    check_checkpoint(checkpoint_job('https://x.org/no.pth'))
    check_checkpoint(checkpoint_job(path, load_from=None))


def test_readable_checkpoints_pass(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict={}, hub=HistoryBuffer([1.0], [1])), path)
    check_checkpoint(checkpoint_job(path))


def test_a_file_of_the_papers_classification_code(tmp_path):
    path = tmp_path / 'model_99.pth'
    torch.save(dict(model={}, args=argparse.Namespace(model='x')), path)
    with pytest.raises(
            InputError, match="no 'state_dict'.*'args', 'model'.*"
            'tools/convert_checkpoint.py'):
        check_checkpoint(checkpoint_job(path))


def test_a_file_with_foreign_objects(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict={}, job=Config(dict(a=1))), path)
    with pytest.raises(
            InputError, match=r'wants mmengine\.config\.config\.\w+, and'):
        check_checkpoint(checkpoint_job(path))


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04 cut', b'text'])
def test_a_file_that_is_cut_off(tmp_path, content):
    path = tmp_path / 'a.pth'
    path.write_bytes(content)
    with pytest.raises(InputError, match='a.pth'):
        check_checkpoint(checkpoint_job(path))


def test_a_plain_pickle_is_no_reason_to_crash(tmp_path):
    path = tmp_path / 'a.pth'
    path.write_bytes(pickle.dumps(dict(a=1)))
    with pytest.raises(InputError, match='a.pth'):
        check_checkpoint(checkpoint_job(path))


#: What nearly led to a refusal while the checks were written.
DELICATE = re.compile(
    r'^(data|optimizer\w*|fp16|evaluation|runner|cudnn_benchmark|resume_from|'
    r'train_dataset|val_evaluator_abs) ?=|language_model|Panoptic', re.M)


def stock_configs():
    """Yield the delicate configs and every 20th, or all if asked to."""
    for library in ('mmdet', 'mmpretrain'):
        root = osp.join(osp.dirname(find_spec(library).origin), '.mim')
        paths = sorted(
            glob.glob(f'{root}/configs/**/*.py', recursive=True))
        for index, path in enumerate(paths):
            with open(path) as file:
                delicate = DELICATE.search(file.read())
            if index % 20 == 0 or delicate or 'APA_ALL_CONFIGS' in os.environ:
                yield path


@pytest.mark.slow
@pytest.mark.skipif(
    not (HAS_MMDET and HAS_MMPRETRAIN), reason='mmdet or mmpretrain missing')
def test_no_config_of_mmdet_or_mmpretrain_is_refused_wrongly(monkeypatch):
    """``APA_ALL_CONFIGS=1`` takes all 1,715, in minutes instead of seconds.

    Their data is not there, so no file is read.
    """
    monkeypatch.setattr(data_checks, '_read', lambda *_: [])
    refused, seen = {}, 0
    for path in stock_configs():
        try:
            cfg = Config.fromfile(path)
        except (FileNotFoundError, KeyError, RuntimeError):
            # Ten of them are broken as they are.
            continue
        if 'model' in cfg and 'train_dataloader' in cfg:
            seen += 1
            try:
                check_config(cfg)
            except InputError as error:
                refused[osp.basename(path)] = str(error)
    assert seen > 100
    # Left over from the 2.x time: it needs fp16, runner and optimizer.
    assert list(refused) == ['vit-base-p16_4xb544-ipu_in1k.py'], refused
