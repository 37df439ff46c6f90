"""Tiny copies of LVIS v1, COCO and V3Det in their true formats.

The number of classes and the names are the true ones where they matter (LVIS
1,203; COCO 80; V3Det 13,204); the images are a few noisy squares. Nothing is
taken from the data sets themselves.
"""
import json
from pathlib import Path
from typing import Callable, Dict, List

import cv2
import numpy as np

#: Side of the square images, in pixels.
SIDE = 96
TRAIN_IMAGES, VAL_IMAGES, OBJECTS = 4, 2, 5
V3DET_CLASSES = 13204


def _image(path: Path, boxes: List[List[int]],
           rng: np.random.Generator) -> None:
    canvas = rng.integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8)
    for x, y, w, h in boxes:
        canvas[y:y + h, x:x + w] = rng.integers(120, 255, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), canvas)


def _annotations(image_ids: List[int], category_ids: List[int],
                 folder: Path, name: str,
                 rng: np.random.Generator) -> Dict[str, list]:
    images, annotations = [], []
    for image_id in image_ids:
        sizes = rng.integers(34, 50, (OBJECTS, 2))
        corners = rng.integers(0, SIDE - 50, (OBJECTS, 2))
        boxes = np.concatenate([corners, sizes], 1).tolist()
        file_name = name.format(image_id)
        _image(folder / file_name, boxes, rng)
        images.append(
            dict(
                id=image_id, width=SIDE, height=SIDE, file_name=file_name))
        for x, y, w, h in boxes:
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=int(rng.choice(category_ids)),
                    bbox=[x, y, w, h],
                    area=w * h,
                    iscrowd=0,
                    segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]]))
    return dict(images=images, annotations=annotations)


def _write(path: Path, data: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def _splits() -> Dict[str, List[int]]:
    ids = list(range(1, TRAIN_IMAGES + VAL_IMAGES + 1))
    return dict(train=ids[:TRAIN_IMAGES], val=ids[TRAIN_IMAGES:])


def make_lvis(root: Path) -> None:
    """Write ``lvis_v1/`` with all 1,203 categories under ``root``."""
    from mmdet.datasets import LVISV1Dataset
    names = LVISV1Dataset.METAINFO['classes']
    rng = np.random.default_rng(0)
    used = [1, 2, 3, 400, 800, 1203]
    for split, ids in _splits().items():
        data = _annotations(ids, used, root / 'lvis_v1',
                            f'{split}2017/{{:012d}}.jpg', rng)
        for image in data['images']:
            # The prefix that mmdet cuts off to get the path.
            image['coco_url'] = ('http://images.cocodataset.org/' +
                                 image.pop('file_name'))
            image['neg_category_ids'] = [5]
            image['not_exhaustive_category_ids'] = [400]
        data['categories'] = []
        for i, name in enumerate(names, 1):
            found = [a for a in data['annotations'] if a['category_id'] == i]
            data['categories'].append(
                dict(
                    id=i,
                    name=name,
                    synset=f'{name}.n.01',
                    frequency='rcf'[i % 3],
                    image_count=len({a['image_id']
                                     for a in found}),
                    instance_count=len(found)))
        _write(root / f'lvis_v1/annotations/lvis_v1_{split}.json', data)


def make_coco(root: Path) -> None:
    """Write ``coco/`` with all 80 categories under ``root``."""
    from mmdet.datasets import CocoDataset
    names = CocoDataset.METAINFO['classes']
    rng = np.random.default_rng(1)
    for split, ids in _splits().items():
        data = _annotations(ids, [1, 3, 80],
                            root / f'coco/{split}2017', '{:012d}.jpg', rng)
        data['categories'] = [
            dict(id=i, name=name, supercategory='thing')
            for i, name in enumerate(names, 1)
        ]
        _write(root / f'coco/annotations/instances_{split}2017.json', data)


def make_v3det(root: Path) -> None:
    """Write ``V3Det/`` with 13,204 categories under ``root``."""
    rng = np.random.default_rng(2)
    names = [f'class_{i:05d}' for i in range(1, V3DET_CLASSES + 1)]
    folder = root / 'V3Det'
    for split, ids in _splits().items():
        data = _annotations(ids, [1, 7000, V3DET_CLASSES], folder,
                            f'images/{split}/{{}}.jpg', rng)
        data['categories'] = [
            dict(id=i, name=name) for i, name in enumerate(names, 1)
        ]
        _write(folder / f'annotations/v3det_2023_v1_{split}.json', data)
    label_file = folder / 'annotations/category_name_13204_v3det_2023_v1.txt'
    label_file.write_text('\n'.join(names) + '\n')


MAKERS: Dict[str, Callable[[Path], None]] = dict(
    lvis=make_lvis, coco=make_coco, v3det=make_v3det)
