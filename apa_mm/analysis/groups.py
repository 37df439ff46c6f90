"""Frequent, common and rare classes: from LVIS's letters or train counts.

Legend: C classes.
"""
from typing import Any, List, NamedTuple, Optional, Sequence

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS

from apa_mm.data.annotations import read_categories
from apa_mm.data.class_frequency import class_frequency, plain_datasets
from apa_mm.functional.shots import FEW_SHOT, MANY_SHOT, shot_groups

LVIS_GROUPS = dict(f='frequent', c='common', r='rare')


class ClassGroups(NamedTuple):
    """Names of the groups from most to least images, and each class's group.

    ``index`` is int64, (C,); ``source`` says where that comes from.
    """

    names: tuple
    index: np.ndarray
    source: str

    def name_of(self, label: int) -> str:
        """Return the group of a class."""
        return self.names[self.index[label]]

    def empty(self) -> List[str]:
        """Return the groups without a class."""
        return [name for i, name in enumerate(self.names)
                if not (self.index == i).any()]


def groups_of_counts(counts: Sequence[int], many: int = MANY_SHOT,
                     few: int = FEW_SHOT,
                     source: str = 'train counts') -> ClassGroups:
    """Group classes by training images (C,): 'many', 'medium' and 'few'."""
    masks = shot_groups(list(counts), many, few)
    index = np.zeros(len(counts), dtype=np.int64)
    for number, mask in enumerate(masks.values()):
        index[mask.numpy()] = number
    return ClassGroups(tuple(masks), index,
                       f'{source}: many > {many}, few < {few} images')


def group_classes(cfg: Config, dataset: Any, many: int = MANY_SHOT,
                  few: int = FEW_SHOT) -> Optional[ClassGroups]:
    """Group the classes of a data set; None if nothing tells how frequent.

    The first of these that is known decides: the letters 'frequency' of the
    categories in an LVIS file, ``train_class_counts`` of the data set's meta
    information, the images per class of the config's training set. ``many``
    and ``few`` are the borders of the last two.
    """
    plain = next(plain_datasets(dataset))
    letters = _lvis_letters(plain)
    if letters is not None:
        return ClassGroups(
            tuple(LVIS_GROUPS.values()),
            np.array([list(LVIS_GROUPS).index(c) for c in letters]),
            'frequency of the categories in the annotation file')
    counts = (getattr(plain, 'metainfo', None) or {}).get('train_class_counts')
    source = 'train_class_counts of the data set'
    if counts is None and cfg.get('train_dataloader'):
        train = DATASETS.build(dict(cfg.train_dataloader.dataset))
        counts = class_frequency(train).counts.tolist()
        source = 'images of the training set'
    return None if counts is None else groups_of_counts(counts, many, few,
                                                        source)


def _lvis_letters(dataset: Any) -> Optional[List[str]]:
    """Return 'r', 'c' or 'f' per class, or None if the file has none."""
    path, ids = (getattr(dataset, name, None)
                 for name in ('ann_file', 'cat_ids'))
    if not path or ids is None or not str(path).endswith('.json'):
        return None
    letters = {c.id: c.frequency for c in read_categories(str(path))}
    found = [letters.get(key) for key in ids]
    return found if found and set(found) <= set(LVIS_GROUPS) else None
