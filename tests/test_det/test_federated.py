"""The lists of LVIS's files on their way to the loss."""
import json
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from support.demo_jobs import DigitsLVISSettings, make_digits_lvis

from apa_mm.data.dataset_files import find_data_files
from apa_mm.utils.imports import HAS_MMDET

if not HAS_MMDET:
    pytest.skip('mmdet is missing', allow_module_level=True)

from apa_mm.det.federated import FederatedLVISDataset, FederatedRoIHead
from mmdet.datasets.transforms import PackDetInputs

NAMES = dict(classes=tuple(map(str, range(30))))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('digits') / 'set'
    make_digits_lvis(str(folder), DigitsLVISSettings(
        num_train=30, num_val=30, train_negatives=3))
    return folder


def test_samples_tell_what_was_looked_for(data):
    path = data / 'annotations/digits_lvis_train.json'
    dataset = FederatedLVISDataset(
        ann_file=str(path), data_root=str(data), data_prefix=dict(img=''),
        metainfo=NAMES, pipeline=[
            dict(type='mmdet.LoadImageFromFile'),
            dict(type='mmdet.LoadAnnotations', with_bbox=True),
            dict(type='mmdet.PackDetInputs')])
    content = json.loads(path.read_text())
    seen = 0
    for sample in map(dataset.__getitem__, range(len(dataset))):
        meta = sample['data_samples'].metainfo
        image, = (i for i in content['images'] if i['id'] == meta['img_id'])
        shown = {a['category_id'] for a in content['annotations']
                 if a['image_id'] == image['id']}
        assert not shown & set(image['neg_category_ids'])
        seen += len(image['neg_category_ids'])
        # Category ids start at 1, labels at 0.
        assert meta['verified_labels'] == sorted(
            i - 1 for i in shown.union(image['neg_category_ids']))
        assert {'img_id', 'ori_shape'} <= set(meta)
    assert seen > 0
    # Only its own pipeline packs more.
    assert 'verified_labels' not in PackDetInputs().meta_keys


def test_the_checks_before_training_know_the_dataset():
    cfg = Config(dict(default_scope='mmdet', train_dataloader=dict(
        dataset=dict(type='apa_mm.FederatedLVISDataset', ann_file='a.json',
                     metainfo=NAMES))))
    file, = find_data_files(cfg, ['train'])
    assert file.layout == 'lvis_v1'


def test_a_set_without_lists_is_refused():
    head = FederatedRoIHead.__new__(FederatedRoIHead)
    with pytest.raises(ValueError, match='no verified_labels; train on an '
                       'apa_mm.FederatedLVISDataset.*rare_threshold=0'):
        head.loss((), [], [SimpleNamespace(metainfo={})])
