"""mmdet's data sets with their annotations in a mapped cache.

A file is parsed once; later starts, other ranks and workers map what was made
of it.
"""
import logging
import os.path as osp
import pickle
from collections import defaultdict
from functools import partial
from itertools import chain
from typing import BinaryIO, List, Optional, Tuple, Union

import msgspec
import numpy as np
from mmdet.datasets import CocoDataset as MMDetCocoDataset
from mmdet.datasets import LVISV1Dataset as MMDetLVISV1Dataset
from mmdet.datasets import LVISV05Dataset as MMDetLVISV05Dataset
from mmdet.datasets import V3DetDataset as MMDetV3DetDataset
from mmengine.logging import print_log

from apa_mm.data.annotation_checks import (check_annotations,
                                           chosen_categories, is_learned)
from apa_mm.data.annotations import (FAULTS, Annotation, AnnotationError,
                                     Image, read_annotations)
from apa_mm.data.array_cache import Contents, Source, put
from apa_mm.data.image_files import image_name
from apa_mm.registry import DATASETS


class CachedAnnotations:
    """Mixin that maps the annotations that mmdet's data set would build.

    Arguments and results are the parent's, element by element. It reads as
    the parent does, with a warning, where the file does not pass
    :func:`~apa_mm.data.annotation_checks.check_annotations` or the cache
    cannot be written; and without one for proposals, class texts, remote
    files and subclasses that read or filter in their own way.
    """

    layout = 'coco'

    def full_init(self) -> None:
        """Map the annotations; parse them first where nobody has.

        Raises:
            ValueError: If no image is left.
        """
        if self._fully_initialized:
            return
        if not self.is_plain():
            return super().full_init()
        try:
            arrays, (cat_ids, names) = self.prepare(
                Source(self.ann_file, read_annotations))
        except (OSError, RuntimeError, *FAULTS) as error:
            print_log(
                f'the annotations of {self.ann_file} cannot be cached and '
                f'every process reads them as mmdet does: {error}',
                'current', logging.WARNING)
            return super().full_init()
        self.cat_ids = cat_ids
        self.cat_names = dict(zip(cat_ids, names, strict=True))
        self.cat2label = {key: label for label, key in enumerate(cat_ids)}
        images = np.split(arrays['cat_images'], arrays['cat_ends'])
        self.cat_img_map = defaultdict(
            list, zip(arrays['cats'].tolist(), images, strict=False))
        self.data_bytes = arrays.pop('data')  # or get_subset would copy it
        self.data_address, self._index = arrays['address'], arrays
        self._fully_initialized = True  # or get_subset_ would begin again
        if self._indices is not None and not (
                isinstance(self._indices, int)  # the parent then takes all
                and abs(self._indices) >= len(self)):
            self.get_subset_(self._indices)
        if not len(self):
            raise ValueError(
                f'no image of {self.ann_file} is left; correct filter_cfg, '
                "indices, and metainfo's classes")

    def prepare(self, source: Source, checked: bool = False) -> Contents:
        """Return what is cached, written first where it is not there.

        ``checked``: the content of the annotation file is known to be sound.

        Raises:
            OSError, RuntimeError: If it cannot be read or written.
            AnnotationError: If the content is not sound.
        """
        purpose = [str(type(self)), self.data_prefix, self.seg_map_suffix,
                   self.test_mode, dict(self.filter_cfg or {}),
                   self.metainfo.get('classes')]
        return source.cached(
            purpose, partial(self._write, source=source, checked=checked))

    def get_cat_ids(self, idx: int) -> List[int]:
        """Return the labels of an image, without unpickling its masks."""
        if not self._is_mapped():
            return super().get_cat_ids(idx)
        idx = range(len(self))[idx]
        start, end = self._index['ends'][idx:idx + 2].tolist()
        return self._index['labels'][start:end].tolist()

    def learned_objects(self) -> Optional[Tuple[np.ndarray, ...]]:
        """Return image ids, (N, ), and labels and image places, (M, ).

        Of objects that are not ignored; None for a subset.
        """
        if not self._is_mapped():
            return None
        arrays = self._index
        places = np.repeat(np.arange(len(self)), np.diff(arrays['ends']))
        learned = arrays['flags'] == 0
        return arrays['images'], arrays['labels'][learned], places[learned]

    def _is_mapped(self) -> bool:
        address = getattr(self, '_index', {}).get('address')
        return address is not None and address is self.data_address

    def is_plain(self) -> bool:
        """Return whether the parent would read what the cache holds."""
        known = (MMDetCocoDataset, MMDetLVISV05Dataset, MMDetLVISV1Dataset)
        readers = [kind for kind in type(self).__mro__
                   if vars(kind).get('reads_as_parent', kind in known)]
        return (self.serialize_data and not self.proposal_file
                and not self.return_classes and not self.backend_args
                and '://' not in str(self.ann_file) and all(
                    any(getattr(type(self), name) is vars(kind).get(name)
                        for kind in readers)
                    for name in ('load_data_list', 'parse_data_info',
                                 'filter_data')))

    def _write(self, file: BinaryIO, source: Source,
               checked: bool) -> Tuple[dict, list]:
        content, classes = source.content, self.metainfo.get('classes')
        problems = [] if checked else check_annotations(
            content, layout=self.layout, classes=classes,
            need_annotations=False).problems
        if problems:
            raise AnnotationError(problems)
        chosen = chosen_categories(content.categories, classes or None,
                                   self.layout)
        labels = {item.id: label for label, item in enumerate(chosen)}
        of_image, of_cat = defaultdict(list), defaultdict(list)
        for item in content.annotations or ():
            of_image[item.image_id].append(item)
            of_cat[item.category_id].append(item.image_id)
        with_classes = set(chain.from_iterable(of_cat[k] for k in labels))
        sizes, ends, kept, flags, images = [], [0], [], [], []
        for image in content.images:
            if not self._is_kept(image, with_classes):
                continue
            info = self._info(image, of_image.get(image.id, ()), labels)
            sizes.append(file.write(pickle.dumps(info, protocol=4)))
            kept += [item['bbox_label'] for item in info['instances']]
            flags += [item['ignore_flag'] for item in info['instances']]
            ends.append(len(kept))
            images.append(image.id)
        arrays = dict(
            address=np.array(sizes, np.int64).cumsum(),
            images=np.array(images, np.int64), ends=np.array(ends, np.int64),
            labels=np.array(kept, np.int32), flags=np.array(flags, np.int8),
            cats=np.array([*of_cat], np.int64),
            cat_ends=np.cumsum([*map(len, of_cat.values())][:-1],
                               dtype=np.int64),
            cat_images=np.array([*chain.from_iterable(of_cat.values())],
                                np.int64))
        places = {name: put(file, array) for name, array in arrays.items()}
        return dict(places, data=[0, '|u1', sum(sizes)]), [
            [*labels], [item.name for item in chosen]]

    def _is_kept(self, image: Image, with_classes: set) -> bool:
        if self.test_mode or self.filter_cfg is None:
            return True
        if (self.filter_cfg.get('filter_empty_gt', False)
                and image.id not in with_classes):
            return False
        return min(image.width, image.height) >= self.filter_cfg.get(
            'min_size', 0)

    def _info(self, image: Image, items: List[Annotation],
              labels: dict) -> dict:
        """Return what mmdet's ``parse_data_info`` does."""
        name = image_name(image, self.layout)
        seg = None
        if self.data_prefix.get('seg'):
            seg = osp.join(self.data_prefix['seg'],
                           name.rsplit('.', 1)[0] + self.seg_map_suffix)
        return dict(
            img_path=osp.join(self.data_prefix['img'], name), img_id=image.id,
            seg_map_path=seg, height=_number(image.height),
            width=_number(image.width), instances=[
                _instance(item, labels[item.category_id]) for item in items
                if item.category_id in labels
                and is_learned(item, image, crowds=True)])


def _instance(item: Annotation, label: int) -> dict:
    x, y, width, height = item.bbox
    found = dict(ignore_flag=int(bool(item.iscrowd)),
                 bbox=[x, y, x + width, y + height], bbox_label=label)
    raw = bytes(item.segmentation)
    if raw[:2] == b'[[' or msgspec.json.decode(raw):
        found['mask'] = _Mask(raw)
    return found


class _Mask:
    """A mask that stays JSON until its image is unpickled."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def __reduce__(self) -> tuple:
        return _decode, (self.raw, )


def _decode(raw: bytes) -> Union[list, dict]:
    return msgspec.json.decode(raw)


def _number(value: float) -> Union[int, float]:
    return int(value) if value.is_integer() else value


@DATASETS.register_module()
class CocoDataset(CachedAnnotations, MMDetCocoDataset):
    """mmdet's ``CocoDataset`` with a cache."""


@DATASETS.register_module()
class V3DetDataset(CachedAnnotations, MMDetV3DetDataset):
    """mmdet's ``V3DetDataset`` with a cache."""


@DATASETS.register_module()
class LVISV05Dataset(CachedAnnotations, MMDetLVISV05Dataset):
    """mmdet's ``LVISV05Dataset`` with a cache, without need of lvis-api."""

    layout = 'lvis_v0.5'


@DATASETS.register_module()
class LVISV1Dataset(CachedAnnotations, MMDetLVISV1Dataset):
    """mmdet's ``LVISV1Dataset`` with a cache, without need of lvis-api."""

    layout = 'lvis_v1'
