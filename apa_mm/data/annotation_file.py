"""One COCO or LVIS annotation file, checked whole and served per image."""
import json
import os.path as osp
from array import array
from collections import defaultdict
from typing import Any, Dict, List, Optional, Sequence

from mmengine.fileio import get_local_path
from mmengine.logging import MMLogger

__all__ = ['AnnotationFile']

#: An area above every range of COCO and LVIS (the largest ends at 1e10), so
#: that an annotation with it is ignored in all of them.
IGNORED_AREA = 2e10
ANNOTATION_KEYS = ('id', 'image_id', 'category_id', 'bbox', 'area')
LVIS_IMAGE_KEYS = ('neg_category_ids', 'not_exhaustive_category_ids')
FREQUENCIES = ('r', 'c', 'f')


class AnnotationFile:
    """Ground truth of a COCO or LVIS file for one-image-at-a-time evaluation.

    The file is parsed once, each annotation at once reduced to what evaluation
    needs: a file like LVIS val takes 0.3 GB. hotcoco's own reader is not used,
    since it hides missing keys, sorts the annotations of an image, whose order
    decides between equal IoUs in pycocotools, and refuses
    ``"licenses": null``.

    Args:
        ann_file (str): Path or URL of the annotation file.
        backend_args (dict, optional): mmengine file backend.
        lvis_style (bool): Demand LVIS's extra keys, drop annotations without
            area and honour ``ignore``, all as lvis-api does.
        with_masks (bool): Demand and serve ``segmentation``.
        with_annotations (bool): False reads images and categories only, as
            for a test set without ground truth.
        keep (bool): False checks the annotations without keeping them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no JSON, or keys are missing or unusable.

    Example:
        >>> import json, tempfile
        >>> from mmengine.logging import MMLogger
        >>> logger = MMLogger.get_instance('quiet', log_level='ERROR')
        >>> box = dict(id=5, image_id=1, category_id=2, bbox=[0, 0, 4, 3],
        ...            area=12)
        >>> with tempfile.NamedTemporaryFile('w', suffix='.json') as file:
        ...     json.dump(dict(images=[dict(id=1, height=8, width=8)],
        ...                    categories=[dict(id=2, name='cup')],
        ...                    annotations=[box]), file)
        ...     file.flush()
        ...     truth = AnnotationFile(file.name)
        >>> truth.annotations(1)[0]['bbox']
        [0.0, 0.0, 4.0, 3.0]
    """

    def __init__(self,
                 ann_file: str,
                 backend_args: Optional[dict] = None,
                 *,
                 lvis_style: bool = False,
                 with_masks: bool = False,
                 with_annotations: bool = True,
                 keep: bool = True) -> None:
        self.path = ann_file
        self.lvis_style = lvis_style
        self.with_masks = with_masks
        self._entries: Dict[int, List[tuple]] = defaultdict(list)
        self._cat_ids: Optional[set] = None
        MMLogger.get_current_instance().info(
            f'Loading annotations from {ann_file}')
        with get_local_path(ann_file, backend_args=backend_args) as local:
            data = self._parse(local, keep and with_annotations)
            self.categories = self._read_categories(data, with_annotations)
            self.images = self._read_images(data, with_annotations)
            if with_annotations:
                self._check_annotations(data)

    def _parse(self, path: str, keep: bool) -> dict:
        """Load the JSON; annotations go to their image's list."""
        if not osp.isfile(path):
            raise FileNotFoundError(
                f"annotation file '{self.path}' does not exist; set ann_file "
                "to the annotation file of the evaluated dataset")
        wanted = ANNOTATION_KEYS + (('segmentation', ) * self.with_masks)
        self._incomplete: list = []
        self._ids: list = []

        def take(entry: dict) -> Optional[dict]:
            if 'image_id' not in entry or 'category_id' not in entry:
                return entry
            missing = [key for key in wanted if entry.get(key) is None]
            if missing:
                self._incomplete.append((entry.get('id'), missing[0]))
                return None
            self._ids.append(entry['id'])
            if keep:
                self._entries[entry['image_id']].append(self._compact(entry))
            return None

        try:
            with open(path, encoding='utf-8') as file:
                data = json.load(file, object_hook=take)
        except json.JSONDecodeError as error:
            raise self._bad(f'is not valid JSON ({error})',
                            'write it anew') from error
        if not isinstance(data, dict):
            raise self._bad('is not a JSON object',
                            "an object with 'images', 'categories' and "
                            "'annotations' is needed")
        return data

    def _compact(self, entry: dict) -> tuple:
        """Return id, category, box, area, crowd, ignore and shape."""
        shape = entry['segmentation'] if self.with_masks else None
        try:
            if isinstance(shape, list):
                shape = [array('d', polygon) for polygon in shape]
            box = array('d', entry['bbox'])
            if len(box) != 4:
                raise ValueError('a bbox has 4 numbers')
            return (entry['id'], entry['category_id'], box,
                    float(entry['area']), int(entry.get('iscrowd') or 0),
                    int(entry.get('ignore') or 0), shape)
        except (TypeError, ValueError) as error:
            raise self._bad(
                f"has an unusable annotation with id {entry['id']!r} "
                f'({error})', 'correct it') from error

    def _bad(self, found: str, cure: str) -> ValueError:
        return ValueError(f"annotation file '{self.path}' {found}; {cure}")

    def _need(self, data: dict, key: str) -> list:
        if not isinstance(data.get(key), list):
            raise self._bad(f"has no list '{key}'",
                            'give a file in COCO or LVIS format')
        return data[key]

    def _read_categories(self, data: dict, evaluated: bool) -> List[dict]:
        """Return the categories in file order, which numbers the labels."""
        categories = self._need(data, 'categories')
        self._check_entries('categories', categories, ('id', 'name'))
        if self.lvis_style and evaluated:
            self._check_entries('categories', categories, ('frequency', ))
            for entry in categories:
                if entry['frequency'] not in FREQUENCIES:
                    raise self._bad(
                        f"gives category {entry['id']} the frequency "
                        f"{entry['frequency']!r}",
                        f'it must be one of {FREQUENCIES}')
        return categories

    def _read_images(self, data: dict, evaluated: bool) -> Dict[int, dict]:
        """Return what the evaluator needs to know of each image, by id."""
        entries = self._need(data, 'images')
        keys = LVIS_IMAGE_KEYS if self.lvis_style and evaluated else ()
        sizes = ('height', 'width') if self.with_masks else ()
        self._check_entries('images', entries, ('id', ) + sizes + keys)
        images = {}
        for entry in entries:
            image = dict(id=entry['id'])
            image.update({key: entry[key] for key in keys})
            image['height'] = int(entry.get('height') or 0)
            image['width'] = int(entry.get('width') or 0)
            images[entry['id']] = image
        return images

    def _check_entries(self, section: str, entries: list,
                       keys: Sequence[str]) -> None:
        for key in keys:
            bad = [entry for entry in entries if entry.get(key) is None]
            if bad:
                first = bad[0].get('id')
                raise self._bad(
                    f"lacks the key '{key}' in {len(bad)} of {len(entries)} "
                    f"{section} (first: id {first})",
                    f"add '{key}' to each" +
                    (' or give an LVIS v1 file' if self.lvis_style else ''))
        for entry in entries:
            if type(entry['id']) is not int:
                raise self._bad(f"has the id {entry['id']!r} in {section}",
                                'ids must be whole numbers')

    def _check_annotations(self, data: dict) -> None:
        if any(self._need(data, 'annotations')):
            raise self._bad(
                "lacks the key 'image_id' or 'category_id' in annotations",
                'add both to each')
        if self._incomplete:
            first, key = self._incomplete[0]
            raise self._bad(
                f"lacks the key '{key}' in {len(self._incomplete)} "
                f'annotations (first: id {first})',
                f"add '{key}' to each" +
                (" or take 'segm' out of metric"
                 if key == 'segmentation' else ''))
        if len(set(self._ids)) < len(self._ids):
            raise self._bad('uses some annotation ids more than once',
                            'number the annotations anew')
        del self._ids, self._incomplete

    def select(self, classes: Optional[Sequence[str]]) -> List[dict]:
        """Return the categories behind labels 0, 1, ... of a dataset.

        LVIS datasets use every category of the file in file order; COCO
        datasets those whose name is one of their classes, in file order too.
        Annotations of other categories are no longer served.

        Args:
            classes (Sequence[str], optional): ``dataset_meta['classes']``;
                None takes every category.

        Returns:
            List[dict]: Categories; the label is the index.

        Raises:
            ValueError: If classes and categories do not match.
        """
        chosen = self.categories
        if classes is not None:
            if not self.lvis_style:
                wanted = set(classes)
                chosen = [c for c in chosen if c['name'] in wanted]
            self._compare(list(classes), chosen)
        self._cat_ids = {category['id'] for category in chosen}
        return chosen

    def _compare(self, classes: List[str], chosen: List[dict]) -> None:
        names = {category['name'] for category in self.categories}
        unknown = [name for name in classes if name not in names]
        if len(chosen) != len(classes) or len(unknown) == len(classes):
            raise ValueError(
                f"the dataset has {len(classes)} classes, but annotation file "
                f"'{self.path}' has {len(self.categories)} 'categories' and "
                f'lacks {len(unknown)} of the classes {unknown[:3]}; give '
                'metric and dataset the same annotation file, or set '
                "metainfo=dict(classes=...) to the file's category names")
        if unknown:
            MMLogger.get_current_instance().warning(
                f"{len(unknown)} classes such as {unknown[0]!r} are not "
                f"named so in '{self.path}': labels are matched to its "
                'categories by their order')

    def image(self, image_id: int) -> dict:
        """Return one image's id, size and, for LVIS, its two lists.

        Raises:
            ValueError: If the file has no such image.
        """
        if image_id not in self.images:
            raise ValueError(
                f'image id {image_id!r} is not in annotation file '
                f"'{self.path}'; give metric and dataset the same file")
        return self.images[image_id]

    def annotations(self, image_id: int) -> List[dict]:
        """Return the annotations of one image in file order."""
        entries = [
            self._expand(image_id, *entry)
            for entry in self._entries.get(image_id, ())
        ]
        if self._cat_ids is not None:
            entries = [e for e in entries if e['category_id'] in self._cat_ids]
        if self.lvis_style:
            # lvis-api drops annotations without area.
            entries = [e for e in entries if 0 < e['area'] < float('inf')]
        return entries

    def _expand(self, image_id: int, ann_id: int, category_id: int,
                box: array, area: float, crowd: int, ignore: int,
                shape: Any) -> dict:
        """Return an annotation as hotcoco reads it."""
        if self.lvis_style:
            # lvis-api knows no crowds and honours `ignore`, hotcoco reverse.
            crowd, area = 0, IGNORED_AREA if ignore else area
        entry = dict(
            id=ann_id,
            image_id=image_id,
            category_id=category_id,
            bbox=box.tolist(),
            area=area,
            iscrowd=crowd)
        if shape is not None:
            entry['segmentation'] = [p.tolist() for p in shape] if isinstance(
                shape, list) else shape
        return entry
