"""The dataset check on miniatures of LVIS, COCO and V3Det."""
import json
from pathlib import Path

import pytest
from mmengine.config import Config
from support import forked
from support.detection_sets import MAKERS

from apa_mm.data.annotation_checks import check_annotations
from apa_mm.data.annotations import parse_annotations
from apa_mm.preflight.job import report_datasets

ROOT = Path(__file__).parents[1]
CONFIGS = dict(
    lvis='configs/det/lvis/mask-rcnn_r50_fpn_gol_sample1e-3-ms-2x_lvis-v1.py',
    coco='configs/det/coco/mask-rcnn_r50_fpn_2x_coco.py',
    v3det='configs/det/v3det/faster-rcnn_r50_fpn_wc_sample1e-3-ms-2x_v3det.py')
CATEGORIES = dict(lvis=1203, coco=80, v3det=13204)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('sets')
    for make in MAKERS.values():
        make(root / 'data')
    return root


@pytest.fixture(autouse=True)
def work_here(data, monkeypatch):
    monkeypatch.chdir(data)


@pytest.mark.parametrize('name', CONFIGS)
def test_sound_sets(name):
    report = report_datasets(Config.fromfile(ROOT / CONFIGS[name]))
    assert report.problems == []
    rows = {row['split']: row for row in report.rows}
    assert set(rows) == {'train', 'val', 'test'}
    for split, images in (('train', 4), ('val', 2)):
        row = rows[split]
        assert (row['images'], row['annotations'], row['categories'],
                row['missing_images']) == (images, images * 5,
                                           CATEGORIES[name], 0)
        assert row['rare'] + row['common'] + row['frequent'] == CATEGORIES[
            name]


def test_missing_images_are_counted(data):
    path = next((data / 'data/coco/train2017').iterdir())
    moved = path.rename(data / 'moved.jpg')
    try:
        report = report_datasets(Config.fromfile(ROOT / CONFIGS['coco']))
        row = next(r for r in report.rows if r['split'] == 'train')
        assert row['missing_images'] == 1
        assert path.name in report.problems[0]
    finally:
        moved.rename(path)


def test_class_count_mismatch():
    cfg = Config.fromfile(ROOT / CONFIGS['coco'])
    cfg.model.roi_head.bbox_head.num_classes = 81
    problems = report_datasets(cfg).problems
    assert any('num_classes is 81' in p for p in problems)


def test_tool_exit_codes(tmp_path):
    command = [ROOT / 'tools/check_dataset.py', ROOT / CONFIGS['coco']]
    good = forked.run(command)
    assert good.returncode == 0, good.stderr
    assert '0 problem(s)' in good.stdout
    bad = forked.run(command, cwd=tmp_path)
    assert bad.returncode == 1
    assert 'annotation file does not exist' in bad.stdout


def test_a_missing_config_is_one_sentence():
    bad = forked.run([ROOT / 'tools/check_dataset.py', 'no.py'])
    assert bad.returncode == 2 and 'Traceback' not in bad.stderr
    assert 'config no.py cannot be read' in bad.stderr


def test_frequency_groups_from_counts_and_from_the_file():
    annotations = [
        dict(category_id=c, image_id=i)
        for c, count in ((1, 10), (2, 11), (3, 100), (4, 101))
        for i in range(count)
    ]
    # An image that shows a class twice counts once, a crowd does not.
    annotations.append(dict(category_id=1, image_id=0))
    annotations.append(dict(category_id=1, image_id=11, iscrowd=1))
    for index, item in enumerate(annotations):
        item.update(id=index, bbox=[0, 0, 5, 5], area=25)
    data = dict(
        images=[
            dict(id=i, file_name=f'{i}.png', height=9, width=9)
            for i in range(101)
        ],
        categories=[dict(id=i, name=f'c{i}') for i in (1, 2, 3, 4)],
        annotations=annotations)

    def groups():
        counts = check_annotations(
            parse_annotations(json.dumps(data).encode())).counts
        return counts['rare'], counts['common'], counts['frequent']

    assert groups() == (1, 2, 1)
    data['categories'][0]['frequency'] = 'f'
    assert groups() == (0, 2, 2)
