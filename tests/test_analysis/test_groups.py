"""Groups of classes from LVIS letters, counts or the training set."""
import json
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from apa_mm.analysis.groups import group_classes, groups_of_counts


def lvis(tmp_path, letters='fcrc', cat_ids=(1, 2, 3, 4)):
    path = tmp_path / 'ann.json'
    path.write_text(json.dumps(dict(categories=[
        dict(id=i + 1, name=str(i), **({'frequency': x} if x != '-' else {}))
        for i, x in enumerate(letters)])))
    return SimpleNamespace(ann_file=str(path), cat_ids=list(cat_ids),
                           metainfo=dict(classes=tuple('abcd')))


def test_letters_of_lvis_decide(tmp_path):
    groups = group_classes(Config(dict()), lvis(tmp_path))
    assert groups.names == ('frequent', 'common', 'rare')
    assert groups.index.tolist() == [0, 1, 2, 1]
    assert groups.name_of(2) == 'rare' and groups.empty() == []


def test_letters_are_in_the_order_of_the_labels(tmp_path):
    groups = group_classes(Config(dict()), lvis(tmp_path, cat_ids=[3, 1]))
    assert groups.index.tolist() == [2, 0]


def test_a_file_without_all_letters_does_not_count(tmp_path):
    assert group_classes(Config(dict()), lvis(tmp_path, 'fc-c')) is None


def test_counts_of_the_meta_information():
    dataset = SimpleNamespace(metainfo=dict(train_class_counts=(200, 50, 3)))
    groups = group_classes(Config(dict()), dataset)
    assert groups.index.tolist() == [0, 1, 2]
    assert 'many > 100, few < 20' in groups.source


def test_a_split_without_rare_classes_is_told():
    assert groups_of_counts([500, 100, 20]).empty() == ['few']
    assert groups_of_counts([500, 100, 20], few=50).empty() == []


def test_wrappers_are_looked_through(tmp_path):
    wrapped = SimpleNamespace(dataset=lvis(tmp_path))
    assert group_classes(Config(dict()), wrapped).index.tolist() == [
        0, 1, 2, 1]


def test_borders_must_not_overlap():
    with pytest.raises(ValueError, match='few must be at most many'):
        groups_of_counts([1, 2], many=5, few=9)
