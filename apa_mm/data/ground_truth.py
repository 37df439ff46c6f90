"""One COCO or LVIS annotation file, checked whole and served per image."""
from array import array
from collections import defaultdict
from typing import Dict, List, Optional, Sequence

from mmengine.logging import MMLogger

from apa_mm.data.annotation_checks import (LVIS_IMAGE_KEYS,
                                           check_annotations,
                                           chosen_categories)
from apa_mm.data.annotations import (Annotation, AnnotationError, Annotations,
                                     Category, read_annotations)
from apa_mm.data.segmentation import pack, unpack

#: An area above every range of COCO and LVIS (the largest ends at 1e10), so
#: that an annotation with it is ignored in all of them.
IGNORED_AREA = 2e10


class GroundTruth:
    """Ground truth of a COCO or LVIS file for one-image-at-a-time evaluation.

    A file like LVIS val takes 0.3 GB. hotcoco's own reader would hide missing
    keys, sort the annotations of an image (their order decides between equal
    IoUs in pycocotools) and refuse ``"licenses": null``.

    Categories and images are numbered anew from 0, in the order of the labels
    and of the ids: hotcoco passes them through float64, where ids above 2^53
    would meet.

    Args:
        ann_file, backend_args: Path or URL, and mmengine's file backend.
        lvis_style (bool): Demand LVIS's extra keys, drop annotations without
            area and honour ``ignore``, all as lvis-api does.
        with_masks (bool): Demand and serve ``segmentation``.
        with_annotations (bool): False for a test set without ground truth.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no JSON, or keys are missing or unusable.
    """

    def __init__(self, ann_file: str, backend_args: Optional[dict] = None, *,
                 lvis_style: bool = False, with_masks: bool = False,
                 with_annotations: bool = True) -> None:
        self.path = ann_file
        self.lvis_style = lvis_style
        self.with_masks = with_masks
        self._layout = 'lvis_v1' if lvis_style else 'coco'
        MMLogger.get_current_instance().info(
            f'Loading annotations from {ann_file}')
        content = self._read(ann_file, backend_args, with_annotations)
        #: All of them, in file order.
        self.categories: List[Category] = content.categories
        # Equal scores are ranked by image, in the order of the ids.
        ids = [item.id for item in content.images]
        rank = {image_id: k for k, image_id in enumerate(sorted(ids))}
        #: Number of each image id, in file order.
        self.images = {image_id: rank[image_id] for image_id in ids}
        self._entries: Dict[int, List[tuple]] = defaultdict(list)
        for number, item in enumerate(content.annotations or ()):
            self._entries[item.image_id].append(self._pack(number, item))
        self._images = {item.id: item for item in content.images}
        self.select(None)

    def _read(self, path: str, backend_args: Optional[dict],
              with_annotations: bool) -> Annotations:
        try:
            content = read_annotations(path, backend_args)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"annotation file '{path}' does not exist; set ann_file to "
                'the annotation file of the evaluated dataset') from None
        except AnnotationError as error:
            problems = error.problems
        else:
            if not with_annotations:
                content.annotations = None
            problems = check_annotations(
                content, layout=None, masks=self.with_masks,
                lvis_metric=self.lvis_style and with_annotations,
                need_annotations=False).problems
            if with_annotations and content.annotations is None:
                problems = ["it lacks 'annotations'", *problems]
        if problems:
            raise AnnotationError(
                [f"annotation file '{path}': {item}" for item in problems])
        return content

    def _pack(self, number: int, item: Annotation) -> tuple:
        area, crowd = item.area, int(item.iscrowd or 0)
        if self.lvis_style:
            # lvis-api knows no crowds and honours `ignore`, hotcoco reverse.
            crowd, area = 0, IGNORED_AREA if item.ignore else area
        shape = pack(item.segmentation) if self.with_masks else None
        return (number, item.category_id, array('d', item.bbox), area, crowd,
                shape)

    def select(self, classes: Optional[Sequence[str]]) -> List[Category]:
        """Return the categories behind labels 0, 1, ... of a dataset.

        Annotations of other categories are no longer served.

        Raises:
            ValueError: If classes and categories do not match.
        """
        chosen = chosen_categories(self.categories, classes, self._layout)
        if classes is not None:
            self._compare(list(classes), chosen)
        self._labels = {category.id: k for k, category in enumerate(chosen)}
        return chosen

    def _compare(self, classes: List[str], chosen: List[Category]) -> None:
        names = {category.name for category in self.categories}
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
        """Return the number, size and two lists (LVIS) of a file's image."""
        if image_id not in self.images:
            raise ValueError(
                f'image id {image_id!r} is not in annotation file '
                f"'{self.path}'; give metric and dataset the same file")
        image = self._images[image_id]
        info = dict(id=self.images[image_id], height=int(image.height),
                    width=int(image.width))
        if self.lvis_style:
            for key in LVIS_IMAGE_KEYS:
                info[key] = [self._labels[i] for i in getattr(image, key) or ()
                             if i in self._labels]
        return info

    def annotations(self, image_id: int) -> List[dict]:
        """Return the annotations of one image in file order, for hotcoco."""
        entries = []
        for number, category_id, box, area, crowd, shape in self._entries.get(
                image_id, ()):
            if category_id not in self._labels or (
                    self.lvis_style and not area > 0):  # as lvis-api
                continue
            entries.append(dict(
                id=number, image_id=self.images[image_id],
                category_id=self._labels[category_id], bbox=box.tolist(),
                area=area, iscrowd=crowd))
            if shape is not None:
                entries[-1]['segmentation'] = unpack(shape)
        return entries
