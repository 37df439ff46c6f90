"""Make an exhaustive annotation federated, as that of LVIS is.

Nobody can look for 1,203 classes on every image. So each class is labelled on
some images alone (its positive ones), a few others are known not to show it
(``neg_category_ids``), and of the rest nothing is said: an unlabelled object
may well be there. On some positive images not every object of the class is
labelled (``not_exhaustive_category_ids``).
"""
from collections import defaultdict
from typing import Dict, List, Sequence, Tuple

import numpy as np

__all__ = ['hide_labels', 'limit_negatives', 'list_absent']

#: Share of the images with several labelled objects of a class that lose one.
NOT_EXHAUSTIVE = 0.2


def list_absent(data: dict, category_ids: Sequence[int]) -> dict:
    """Return a fully labelled file with every absent class as a negative."""
    shown = _objects(data)
    return dict(data, images=[
        dict(image, neg_category_ids=[
            i for i in category_ids if (image['id'], i) not in shown])
        for image in data['images']
    ])


def hide_labels(data: dict, share: float, rng: np.random.Generator) -> None:
    """Take the labels of a share of each class's images away, in place.

    One image of every class stays labelled. What is hidden on an image is in
    none of its lists, so that nothing is said about it.

    Args:
        data (dict): Contents of an LVIS file, annotated exhaustively.
        share (float): Of the images of every class, in [0, 1).
        rng (np.random.Generator): Source of randomness.
    """
    objects = _objects(data)
    images = {image['id']: image for image in data['images']}
    by_class: Dict[int, List[int]] = defaultdict(list)
    for image_id, category_id in sorted(objects):
        by_class[category_id].append(image_id)
    for category_id, shown in sorted(by_class.items()):
        number = int(share * len(shown))  # fewer than all
        hidden = set(rng.choice(shown, number, replace=False).tolist())
        for image_id in shown:
            found = objects[image_id, category_id]
            if image_id in hidden:
                found.clear()
            elif len(found) > 1 and rng.random() < NOT_EXHAUSTIVE:
                found.pop()
                images[image_id]['not_exhaustive_category_ids'].append(
                    category_id)
    kept = {id(item) for found in objects.values() for item in found}
    data['annotations'] = [
        dict(item, id=number) for number, item in enumerate(
            (a for a in data['annotations'] if id(a) in kept), start=1)
    ]


def limit_negatives(data: dict, number: int,
                    rng: np.random.Generator) -> None:
    """Keep some verified negative images of every class, in place.

    Args:
        data (dict): Contents of an LVIS file whose ``neg_category_ids`` hold
            every class that is not on the image.
        number (int): Images to keep for each class at most.
        rng (np.random.Generator): Source of randomness.
    """
    absent: Dict[int, List[dict]] = defaultdict(list)
    for image in data['images']:
        for category_id in image['neg_category_ids']:
            absent[category_id].append(image)
        image['neg_category_ids'] = []
    for category_id, images in sorted(absent.items()):
        for index in rng.permutation(len(images))[:number]:
            images[index]['neg_category_ids'].append(category_id)


def _objects(data: dict) -> Dict[Tuple[int, int], List[dict]]:
    objects: Dict[Tuple[int, int], List[dict]] = defaultdict(list)
    for annotation in data['annotations']:
        objects[annotation['image_id'], annotation['category_id']].append(
            annotation)
    return objects
