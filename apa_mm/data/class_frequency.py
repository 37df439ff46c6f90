"""Images per class, read once from a training dataset or its annotations.

Datasets are taken by what they can do, so that neither mmdet nor mmpretrain
is imported.
"""
from collections import Counter
from typing import Any, Dict, Iterator, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from torch.utils.data import Subset

from apa_mm.data.annotation_checks import (check_annotations,
                                           chosen_categories, is_learned)
from apa_mm.data.annotations import (AnnotationError, read_annotations,
                                     read_categories)
from apa_mm.utils.tables import show


class ClassFrequency(NamedTuple):
    """In how many images each class occurs, in the order of the labels."""

    counts: np.ndarray  # (C,) int64, C classes
    num_images: int  # that the counts refer to
    classes: tuple
    source: str  # where they come from, for messages


def class_frequency(dataset: Any) -> ClassFrequency:
    """Count the images of every class in a training dataset.

    - Datasets of COCO and LVIS files keep an index of the whole file. Every
      image counts once per class, even if the dataset filters it out; objects
      that are not learned (crowds, boxes without area or outside) do not
      count. ``num_images`` are the images with an object: 99,388 for LVIS
      v1's training set, not the 100,170 listed ones.
    - Classification datasets (they have ``get_gt_labels``) and others with
      ``get_cat_ids`` count their samples; ``num_images`` is their length,
      or the number of samples with a label.

    Wrappers are looked through, so repeated images count once. The members
    of a concatenation add up; a file that several members read counts once,
    members without any object count as nothing.

    Raises:
        TypeError: If a dataset cannot tell the classes of its images.
        ValueError: If members have different classes, there is no object at
            all, or a file has not the classes of its dataset.
    """
    found: Dict[Any, ClassFrequency] = {}
    for member in plain_datasets(dataset):
        if hasattr(member, 'full_init'):
            member.full_init()
        if hasattr(member, 'cat_img_map'):
            item = _from_index(member)
            found.setdefault((item.source, item.classes), item)
        else:
            found[len(found)] = _from_samples(member)
    labelled = [item for item in found.values() if item.num_images]
    if not labelled:
        sources = ' + '.join(item.source for item in found.values())
        raise ValueError(
            f'{sources} holds no object to learn from; train on a file that '
            'has annotations which are not all crowds, without area or '
            'outside of their image')
    first = labelled[0]
    for other in labelled[1:]:
        if other.classes != first.classes:
            raise ValueError(
                'concatenated datasets must have the same classes, but '
                f'{first.source} has {len(first.classes)} '
                f'({show(first.classes)}) and {other.source} has '
                f'{len(other.classes)} ({show(other.classes)}); give all of '
                'them the same metainfo=dict(classes=...)')
    return ClassFrequency(
        sum(item.counts for item in labelled),
        sum(item.num_images for item in labelled), first.classes,
        ' + '.join(item.source for item in labelled))


def class_frequency_from_file(
        ann_file: str, classes: Optional[Sequence[str]] = None,
        backend_args: Optional[dict] = None) -> ClassFrequency:
    """Read the images of every class from a COCO- or LVIS-style file.

    If all its categories have an ``image_count``, as in LVIS, that is taken;
    otherwise images are counted. ``classes`` choose as in
    :func:`~apa_mm.data.annotation_checks.chosen_categories`.

    Raises:
        ValueError: If the file is not JSON, lacks a key, or lacks a class.
    """
    try:
        content = read_annotations(ann_file, backend_args)
        # Images of LVIS v1 have no file_name.
        lvis = any(image.coco_url and not image.file_name
                   for image in (content.images or ())[:1])
        layout = 'lvis_v1' if lvis else 'coco'
        problems = check_annotations(
            content, layout=layout, classes=classes).problems
    except AnnotationError as error:
        problems = error.problems
    if problems:
        raise ValueError(f'annotation file {ann_file}: ' + '; '.join(problems))
    categories = chosen_categories(content.categories, classes, layout)
    images = {item.id: item for item in content.images}
    shown = {(item.category_id, item.image_id) for item in content.annotations
             if is_learned(item, images[item.image_id])}
    if all(item.image_count is not None for item in content.categories):
        counts = [item.image_count for item in categories]
    else:
        number = Counter(category for category, _ in shown)
        counts = [number[item.id] for item in categories]
    return ClassFrequency(
        np.array(counts, dtype=np.int64), len({image for _, image in shown}),
        tuple(item.name for item in categories), str(ann_file))


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
            dataset.full_init()  # mmpretrain's KFoldDataset takes its fold
        yield from plain_datasets(dataset.dataset)
    else:
        yield dataset


def _from_index(dataset: Any) -> ClassFrequency:
    """Count with mmdet's index of all annotations, by category."""
    source = str(getattr(dataset, 'ann_file', type(dataset).__name__))
    classes = _names_by_label(dataset)
    if len(dataset.cat_ids) != len(classes):
        raise ValueError(
            f'annotation file {source} has {len(dataset.cat_ids)} categories '
            f'for the {len(classes)} classes of the dataset '
            f'({show(classes)}); set metainfo=dict(classes=...) to the names '
            'of the file')
    held, labels, places = _objects(dataset)
    label_of = {key: label for label, key in enumerate(dataset.cat_ids)}
    index = dataset.cat_img_map
    of_file = np.repeat([label_of.get(key, -1) for key in index],
                        [len(ids) for ids in index.values()]).astype(int)
    images, at = np.unique(
        np.concatenate([held, *filter(len, index.values())]),
        return_inverse=True)
    held, at = at[:len(held)], at[len(held):]
    # What the file says counts of other classes and of images left out.
    counts = (of_file < 0) | ~np.isin(at, held)
    labels = np.concatenate([of_file[counts], labels])
    shown = np.concatenate([at[counts], held[places]])
    pairs = np.sort(labels[labels >= 0] * len(images) + shown[labels >= 0])
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]  # np.unique is slower
    return ClassFrequency(
        np.bincount(pairs // max(len(images), 1), minlength=len(classes)),
        len(np.unique(shown)), classes, source)


def _objects(dataset: Any) -> Tuple[np.ndarray, ...]:
    """Return image ids, and labels and places of what is learned on them."""
    found = getattr(dataset, 'learned_objects', lambda: None)()
    if found is not None:
        return found
    images, pairs = [], []
    for place in range(len(dataset)):
        info = dataset.get_data_info(place)
        images.append(info['img_id'])
        pairs += [(item['bbox_label'], place) for item in info['instances']
                  if not item.get('ignore_flag')]
    return (np.array(images), *np.array(pairs, int).reshape(-1, 2).T)


def _names_by_label(dataset: Any) -> tuple:
    """Return class names in the order of the labels, that of the file."""
    told = _class_names(dataset) or tuple(map(str, dataset.cat_ids))
    try:
        names = getattr(dataset, 'cat_names', None) or {
            item.id: item.name for item in read_categories(
                dataset.ann_file, getattr(dataset, 'backend_args', None))}
    except (AttributeError, OSError, ValueError):
        return told  # made by code, not from a file
    found = tuple(str(names.get(key, key)) for key in dataset.cat_ids)
    return found if sorted(found) == sorted(told) else told


def _from_samples(dataset: Any) -> ClassFrequency:
    """Count the labels of every sample."""
    name = type(dataset).__name__
    classes = _class_names(dataset)
    try:
        labels = [np.unique(np.asarray(dataset.get_cat_ids(i), np.int64))
                  for i in range(len(dataset))]
    except (AttributeError, NotImplementedError) as error:
        raise TypeError(
            f'{name} cannot tell the classes of its images: it has neither '
            'cat_img_map nor a working get_cat_ids; name a COCO-style file '
            "with dict(type='apa_mm.ClassFrequencyHook', ann_file=...)"
        ) from error
    if not classes:
        raise TypeError(f'{name} has no class names; set '
                        'metainfo=dict(classes=...)')
    flat = np.concatenate([np.zeros(0, np.int64), *labels])
    if flat.size and not 0 <= flat.min() <= flat.max() < len(classes):
        raise ValueError(
            f'{name} has labels from {flat.min()} to {flat.max()}, but '
            f'{len(classes)} classes; set metainfo=dict(classes=...) to all '
            'of them')
    num_images = len(dataset) if hasattr(dataset, 'get_gt_labels') else sum(
        len(item) > 0 for item in labels)
    return ClassFrequency(
        np.bincount(flat, minlength=len(classes)), num_images, classes,
        str(getattr(dataset, 'ann_file', '') or name))


def _class_names(dataset: Any) -> Optional[tuple]:
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    return None if classes is None else tuple(classes)
