"""What is in the data sets of a config, and what is wrong with them."""
import json
import os.path as osp
from collections import Counter, defaultdict
from typing import Dict, List, NamedTuple

from mmengine.config import Config

from apa_mm.data.annotation_checks import check_annotations
from apa_mm.data.dataset_files import DataFile, find_data_files
from apa_mm.preflight.job import InputError, check_config

__all__ = ['DatasetReport', 'frequency_groups', 'report_datasets']

#: LVIS calls a class rare up to 10 training images, common up to 100.
RARE, COMMON = 10, 100


class DatasetReport(NamedTuple):
    """The data files of a config.

    Attributes:
        rows (list[dict]): One per annotation file: 'split', 'file', 'images',
            'annotations', 'categories', 'missing_images',
            'unused_categories', 'rare', 'common', 'frequent'.
        problems (list[str]): One sentence per problem; empty if the config
            can run on them.
    """

    rows: List[dict]
    problems: List[str]


def frequency_groups(annotation: dict) -> Dict[str, int]:
    """Count the rare, common and frequent classes of an annotation dict.

    The ``frequency`` that LVIS files state for every category is taken where
    it is there; otherwise the number of images that show the class decides:
    at most 10 is rare, at most 100 common.

    Args:
        annotation (dict): With 'categories' and 'annotations'.

    Returns:
        dict[str, int]: Number of classes under 'rare', 'common', 'frequent'.

    Example:
        >>> frequency_groups(dict(categories=[dict(id=1)], annotations=[]))
        {'rare': 1, 'common': 0, 'frequent': 0}
    """
    images = defaultdict(set)
    for item in annotation['annotations']:
        images[item['category_id']].add(item['image_id'])
    groups = Counter()
    for category in annotation['categories']:
        count = len(images[category['id']])
        letter = category.get('frequency') or (
            'r' if count <= RARE else 'c' if count <= COMMON else 'f')
        groups[letter] += 1
    return dict(
        rare=groups['r'], common=groups['c'], frequent=groups['f'])


def report_datasets(cfg: Config) -> DatasetReport:
    """Read the annotation files and image folders that a config names.

    Args:
        cfg (Config): The config of a job.

    Returns:
        DatasetReport: Counts per file, and everything that is wrong.
    """
    problems: List[str] = []
    try:
        check_config(cfg)
    except InputError as error:
        problems = str(error).splitlines()
    rows, seen = [], set()
    for item in find_data_files(cfg):
        readable = osp.isfile(item.path) and item.layout is not None
        if readable and (item.split, item.path) not in seen:
            seen.add((item.split, item.path))
            rows.append(_row(item))
    return DatasetReport(rows, problems)


def _row(item: DataFile) -> dict:
    row = dict(split=item.split, file=item.path)
    try:
        with open(item.path, encoding='utf-8') as file:
            annotation = json.load(file)
        row.update(
            check_annotations(
                annotation, item.image_folder, layout=item.layout).counts)
        row.update(frequency_groups(annotation))
    except (ValueError, KeyError, TypeError, AttributeError):
        # check_config has said what is wrong with the file.
        row['images'] = 'unreadable'
    return row
