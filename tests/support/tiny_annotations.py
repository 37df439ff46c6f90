"""A detection set of six images without pixels, and its class counts."""
import json

import pytest

CLASSES = ('ant', 'bee', 'cat', 'dog')
# (image, category, box): image 5 is too small for training, image 6 has no
# annotation, and the box of bee in 4 has no area, so that it does not count.
ANNOTATIONS = [(1, 10, 20), (1, 10, 30), (1, 20, 20), (2, 10, 20),
               (3, 20, 20), (3, 40, 20), (3, 40, 20), (4, 20, 0),
               (5, 10, 5), (5, 30, 5), (2, 10, 20)]
COUNTS = [3, 2, 1, 1]
NUM_IMAGES = 4


def write(path, annotations=ANNOTATIONS, classes=CLASSES, **extra):
    """Write an LVIS- and COCO-style file with category ids 10, 20, ..."""
    sizes = {5: 8}
    content = dict(
        images=[
            dict(
                id=i,
                file_name=f'{i}.png',
                coco_url=f'http://images.cocodataset.org/{i}.png',
                height=sizes.get(i, 64),
                width=sizes.get(i, 64)) for i in range(1, 7)
        ],
        annotations=[
            dict(
                id=n + 1,
                image_id=image,
                category_id=category,
                bbox=[0, 0, side, side],
                area=side * side,
                iscrowd=0) for n, (image, category,
                                   side) in enumerate(annotations)
        ],
        categories=[
            dict(id=10 * (i + 1), name=name)
            for i, name in enumerate(classes)
        ])
    content.update(extra)
    path.write_text(json.dumps(content))
    return str(path)


def build(kind, ann_file, classes=CLASSES, **kwargs):
    """Build an mmdet dataset as training does, filters included."""
    pytest.importorskip('mmdet')
    from mmdet.registry import DATASETS
    return DATASETS.build(
        dict(
            type=kind,
            ann_file=ann_file,
            metainfo=dict(classes=classes),
            pipeline=[],
            _scope_='mmdet',
            **{
                'data_prefix': dict(img=''),
                'filter_cfg': dict(filter_empty_gt=True, min_size=32),
                **kwargs
            }))
