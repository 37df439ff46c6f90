"""Images per class, read once from a training dataset or its annotations.

Datasets are taken by what they can do, so that neither mmdet nor mmpretrain
is imported. C is the number of classes.
"""
import json
from typing import (Any, Dict, Iterator, List, NamedTuple, Optional,
                    Sequence)

import numpy as np
from mmengine.fileio import get_text
from torch.utils.data import Subset

from apa_mm.data.annotation_checks import check_annotations, show

__all__ = [
    'ClassFrequency', 'class_frequency', 'class_frequency_from_file',
    'plain_datasets'
]


class ClassFrequency(NamedTuple):
    """In how many images each class occurs.

    Attributes:
        counts (np.ndarray): Images per class, int64, (C,), in the order of
            the labels.
        num_images (int): Images that the counts refer to.
        classes (tuple[str]): Class names, (C,).
        source (str): Where they come from, for messages.
    """

    counts: np.ndarray
    num_images: int
    classes: tuple
    source: str


def class_frequency(dataset: Any) -> ClassFrequency:
    """Count the images of every class in a training dataset.

    - Datasets of COCO and LVIS files (mmdet's ``CocoDataset`` and what is
      derived from it) keep an index of the whole file. Every image counts
      once per class, whatever the dataset filters out, and ``num_images`` is
      the number of images that carry an annotation: 99,388 for LVIS v1's
      training set, not the 100,170 listed images.
    - Classification datasets (they have ``get_gt_labels``) count their
      samples, and ``num_images`` is their length.
    - Other datasets with ``get_cat_ids`` count their samples, and
      ``num_images`` is the number of samples with a label.

    Wrappers are looked through, so repeated images count once. The members
    of a concatenation add up; a file that several members read counts once.

    Args:
        dataset (Dataset): A dataset or a wrapper of mmengine, mmdet or
            mmpretrain.

    Returns:
        ClassFrequency: Sum over all members.

    Raises:
        TypeError: If a dataset cannot tell the classes of its images.
        ValueError: If members have different classes, or an annotation file
            has no annotations or not the classes of its dataset.
    """
    found: List[ClassFrequency] = []
    files = set()
    for member in plain_datasets(dataset):
        if hasattr(member, 'full_init'):
            member.full_init()
        if hasattr(member, 'cat_img_map'):
            item = _from_index(member)
            if (item.source, item.classes) not in files:
                found.append(item)
            files.add((item.source, item.classes))
        else:
            found.append(_from_samples(member))
    first = found[0]
    for other in found[1:]:
        if other.classes != first.classes:
            raise ValueError(
                'concatenated datasets must have the same classes, but '
                f'{first.source} has {len(first.classes)} '
                f'({show(first.classes)}) and {other.source} has '
                f'{len(other.classes)} ({show(other.classes)}); give all of '
                'them the same metainfo=dict(classes=...)')
    return ClassFrequency(
        sum(item.counts for item in found),
        sum(item.num_images for item in found), first.classes,
        ' + '.join(item.source for item in found))


def class_frequency_from_file(ann_file: str,
                              classes: Optional[Sequence[str]] = None,
                              backend_args: Optional[dict] = None
                              ) -> ClassFrequency:
    """Read the images of every class from a COCO- or LVIS-style file.

    Args:
        ann_file (str): JSON file. If all its categories have an
            ``image_count``, as in LVIS, that is taken; otherwise images are
            counted.
        classes (Sequence[str], optional): Names of the dataset, which mmdet
            looks up in a COCO file; of an LVIS file it takes every category.
            The order is the file's. None takes every category.
        backend_args (dict, optional): Of mmengine's file backend.

    Returns:
        ClassFrequency: As for :func:`class_frequency`.

    Raises:
        ValueError: If the file is not JSON, lacks a key, or lacks a class.
    """
    try:
        content = json.loads(get_text(ann_file, backend_args=backend_args))
    except json.JSONDecodeError as error:
        raise ValueError(
            f'annotation file {ann_file} is not JSON ({error}); it may be cut '
            'off or another file, get it again') from error
    layout = _layout(content)
    problems = check_annotations(
        content, layout=layout,
        classes=None if classes is None else tuple(classes)).problems
    if problems:
        raise ValueError(f'annotation file {ann_file}: ' + '; '.join(problems))
    wanted = None if classes is None or layout != 'coco' else set(classes)
    categories = [
        item for item in content['categories']
        if wanted is None or item['name'] in wanted
    ]
    images: Dict[Any, set] = {}
    for item in content['annotations']:
        images.setdefault(item['category_id'], set()).add(item['image_id'])
    if all('image_count' in item for item in content['categories']):
        counts = [item['image_count'] for item in categories]
    else:
        counts = [len(images.get(item['id'], ())) for item in categories]
    return ClassFrequency(
        np.array(counts, dtype=np.int64), len(set().union(*images.values())),
        tuple(item['name'] for item in categories), str(ann_file))


def _layout(content: Any) -> str:
    """Return how a file names its images: LVIS v1 has no file_name."""
    images = content.get('images') if isinstance(content, dict) else None
    first = images[0] if images and isinstance(images, list) else {}
    return 'lvis_v1' if 'coco_url' in first and 'file_name' not in first \
        else 'coco'


def plain_datasets(dataset: Any) -> Iterator[Any]:
    """Yield the datasets inside of wrappers and concatenations.

    A wrapper has a ``dataset``, a concatenation ``datasets``. torch's
    ``Subset`` is not looked through: its indices select images.
    """
    if isinstance(getattr(dataset, 'datasets', None), (list, tuple)):
        for member in dataset.datasets:
            yield from plain_datasets(member)
    elif hasattr(dataset, 'dataset') and not isinstance(dataset, Subset):
        if hasattr(dataset, 'full_init'):
            # mmpretrain's KFoldDataset takes its fold out here.
            dataset.full_init()
        yield from plain_datasets(dataset.dataset)
    else:
        yield dataset


def _from_index(dataset: Any) -> ClassFrequency:
    """Count with the index of category to images that mmdet keeps."""
    source = str(getattr(dataset, 'ann_file', type(dataset).__name__))
    images = {key: set(ids) for key, ids in dataset.cat_img_map.items()}
    annotated = set().union(*images.values())
    if not annotated:
        raise ValueError(
            f"annotation file {source} holds no annotations: 'annotations' is "
            'missing or empty; train on a file that has them')
    classes = _class_names(dataset)
    if classes is None:
        classes = tuple(str(key) for key in dataset.cat_ids)
    if len(dataset.cat_ids) != len(classes):
        raise ValueError(
            f'annotation file {source} has {len(dataset.cat_ids)} categories '
            f'for the {len(classes)} classes of the dataset '
            f'({show(classes)}); set metainfo=dict(classes=...) to the names '
            'of the file')
    counts = [len(images.get(key, ())) for key in dataset.cat_ids]
    return ClassFrequency(
        np.array(counts, dtype=np.int64), len(annotated), classes, source)


def _from_samples(dataset: Any) -> ClassFrequency:
    """Count the labels of every sample."""
    name = type(dataset).__name__
    classes = _class_names(dataset)
    try:
        labels = [
            np.unique(np.asarray(dataset.get_cat_ids(i), dtype=np.int64))
            for i in range(len(dataset))
        ]
    except (AttributeError, NotImplementedError) as error:
        raise TypeError(
            f'{name} cannot tell the classes of its images: it has neither '
            'cat_img_map nor a working get_cat_ids; name a COCO-style file '
            "with dict(type='apa_mm.ClassFrequencyHook', ann_file=...)"
        ) from error
    if not classes:
        raise TypeError(f'{name} has no class names; set '
                        'metainfo=dict(classes=...)')
    flat = np.concatenate(labels) if labels else np.zeros(0, dtype=np.int64)
    if flat.size and not 0 <= flat.min() <= flat.max() < len(classes):
        raise ValueError(
            f'{name} has labels from {flat.min()} to {flat.max()}, but '
            f'{len(classes)} classes; set metainfo=dict(classes=...) to all '
            'of them')
    num_images = len(dataset)
    if not hasattr(dataset, 'get_gt_labels'):
        num_images = sum(len(item) > 0 for item in labels)
    return ClassFrequency(
        np.bincount(flat, minlength=len(classes)), num_images, classes,
        str(getattr(dataset, 'ann_file', '') or name))


def _class_names(dataset: Any) -> Optional[tuple]:
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    return None if classes is None else tuple(classes)
