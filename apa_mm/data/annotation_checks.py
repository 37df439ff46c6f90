"""Check the content of an annotation file against what reads it."""
from collections import Counter, defaultdict
from typing import Dict, List, NamedTuple, Optional, Sequence, Set, Union

from apa_mm.data.annotations import (SECTIONS, Annotation, Annotations,
                                     Category, Image, entries_text)
from apa_mm.data.segmentation import is_usable
from apa_mm.utils.checks import check_choice
from apa_mm.utils.tables import show

LAYOUTS = ('coco', 'lvis_v0.5', 'lvis_v1')
#: LVIS calls a class rare up to 10 training images, common up to 100.
RARE, COMMON = 10, 100
LVIS_IMAGE_KEYS = ('neg_category_ids', 'not_exhaustive_category_ids')


class AnnotationReport(NamedTuple):
    """What :func:`check_annotations` found; names are category names.

    ``counts`` are of images, annotations, unlearned_annotations (of other
    classes or not :func:`is_learned`), categories, unused_categories,
    images_without_annotations, and of rare, common and frequent categories.
    """

    problems: List[str]  # one sentence each
    counts: Dict[str, int] = {}
    unused_categories: List[str] = []  # with nothing to learn from
    labels: List[str] = []  # category names in the order of the labels
    sorted_labels: List[str] = []  # the same if labels go by category id
    shares: List[float] = []  # of annotated images, by category
    federated: bool = False  # some image says nothing of some category


def check_annotations(
        content: Annotations, *, layout: Optional[str] = 'coco',
        classes: Optional[Sequence[str]] = None, lvis_metric: bool = False,
        masks: bool = False, trains: bool = False, min_size: float = 0,
        need_annotations: bool = True) -> AnnotationReport:
    """Check the content of a file.

    Args:
        content (Annotations): From
            :func:`~apa_mm.data.annotations.read_annotations`.
        layout (str, optional): Who reads it, one of 'coco', 'lvis_v0.5' and
            'lvis_v1'. It says which key names an image (see
            :func:`~apa_mm.data.image_files.image_name`) and which categories
            are taken (:func:`chosen_categories`). None is 'coco' without need
            of image names.
        classes (Sequence[str], optional): The dataset's class names.
        lvis_metric (bool): Ask for the keys that LVIS evaluation reads.
        masks (bool): Ask for a usable ``segmentation`` in every annotation.
        trains (bool): Not in those that training drops before.
        min_size (float): Shorter sides of images that training leaves out.
        need_annotations (bool): False for a set that may be without labels.
    """
    check_choice('layout', layout, (*LAYOUTS, None))
    problems = _section_problems(content, need_annotations)
    if problems:
        return AnnotationReport(problems)
    images, categories = content.images, content.categories
    annotations = content.annotations or []
    name = 'coco_url' if layout == 'lvis_v1' else 'file_name'
    problems = _key_problems(
        'images', images, ['id', 'height', 'width'] + [name] * bool(layout) +
        [*LVIS_IMAGE_KEYS] * lvis_metric)
    problems += _key_problems(
        'annotations', annotations,
        ['id', 'image_id', 'category_id', 'bbox', 'area'])
    problems += _key_problems('categories', categories,
                              ['id', 'name'] + ['frequency'] * lvis_metric)
    if problems:
        return AnnotationReport(problems)
    problems = _reference_problems(images, annotations, categories)
    problems += _class_problems(categories, classes, layout)
    image_of = {image.id: image for image in images}
    learned = chosen_categories(categories, classes, layout)
    chosen = {item.id for item in learned}
    if masks:
        problems += _mask_problems(annotations, image_of,
                                   chosen if trains else None)
    counts, unused, shares, federated = _counts(
        image_of, annotations, categories, chosen, min_size)
    by_id = sorted(learned, key=lambda item: item.id)
    return AnnotationReport(
        problems, counts, unused, [item.name for item in learned],
        [item.name for item in by_id], shares, federated)


def is_learned(item: Annotation, image: Image, crowds: bool = False) -> bool:
    """Return whether mmdet's reader makes an object to learn from it.

    It drops what is marked ``ignore``, has no area, is thinner than a pixel
    or lies outside the image, and hands on crowds to be ignored.
    """
    x, y, width, height = item.bbox
    return (not item.ignore and (crowds or not item.iscrowd) and item.area > 0
            and width >= 1 and height >= 1
            and x + width > max(x, 0) and x < image.width
            and y + height > max(y, 0) and y < image.height)


def chosen_categories(categories: Sequence[Category],
                      classes: Optional[Sequence[str]],
                      layout: Optional[str] = 'coco') -> List[Category]:
    """Return the categories behind a dataset's labels, in file order.

    mmdet's COCO datasets take those that ``classes`` names, its LVIS datasets
    all.
    """
    every = classes is None or layout not in ('coco', None)
    wanted = set(classes or ())
    return [item for item in categories if every or item.name in wanted]


def _section_problems(content: Annotations,
                      need_annotations: bool) -> List[str]:
    needed = [name for name in SECTIONS
              if name != 'annotations' or need_annotations]
    absent = [name for name in needed if getattr(content, name) is None]
    if absent:
        return [f"it lacks {', '.join(map(repr, absent))}; a COCO-style file "
                "has 'images', 'annotations' and 'categories'"]
    return [f"'{name}' is empty; nothing could be read from it, so check that "
            'it is the right file'
            for name in needed if not getattr(content, name)]


def _key_problems(section: str,
                  items: Sequence[Union[Image, Annotation, Category]],
                  needed: Sequence[str]) -> List[str]:
    """Return one sentence for every key that some items lack."""
    problems = []
    for key in needed:
        lacking = [index for index, item in enumerate(items)
                   if getattr(item, key) is None]
        if lacking:
            first = items[lacking[0]].id
            named = '' if first is None else f' with id {first}'
            problems.append(
                f"{len(lacking)} of {len(items)} entries of '{section}' lack "
                f'{key!r} (the first is entry {lacking[0]}{named}); add it '
                'to the file')
    return problems


def _mask_problems(annotations: Sequence[Annotation],
                   images: Dict[int, Image],
                   chosen: Optional[Set[int]]) -> List[str]:
    """Look at all, or at what training keeps of the chosen categories."""
    bad = [
        index for index, item in enumerate(annotations)
        if (image := images.get(item.image_id)) and (
            chosen is None or
            item.category_id in chosen and is_learned(item, image, True))
        and not is_usable(item.segmentation, (image.height, image.width))]
    if not bad:
        return []
    first = annotations[bad[0]]
    value = bytes(first.segmentation)[:200].decode(errors='replace')
    return [entries_text('annotations', len(annotations), 'segmentation', bad,
                         first.id, value)]


def _reference_problems(images: Sequence[Image],
                        annotations: Sequence[Annotation],
                        categories: Sequence[Category]) -> List[str]:
    problems = []
    for section, items in (('images', images), ('annotations', annotations),
                           ('categories', categories)):
        number = Counter(item.id for item in items)
        twice = [key for key, times in number.items() if times > 1]
        if twice:
            problems.append(
                f"{len(twice)} ids of '{section}' occur more than once "
                f'({show(twice)}); give every entry an id of its own')
    for key, section, items in (('image_id', 'images', images),
                                ('category_id', 'categories', categories)):
        known = {item.id for item in items}
        ids = (getattr(item, key) for item in annotations)
        lost = [value for value in ids if value not in known]
        if lost:
            problems.append(
                f"the {key} of {len(lost)} annotations is not among the ids "
                f"of '{section}' ({show(dict.fromkeys(lost))}); remove them "
                f'or add the {section}')
    return problems


def _class_problems(categories: Sequence[Category],
                    classes: Optional[Sequence[str]],
                    layout: Optional[str]) -> List[str]:
    if classes is None:
        return []
    names = [category.name for category in categories]
    listed = [item.name for item in chosen_categories(
        categories, classes, layout)]
    twice = [name for name, times in (
        Counter(listed) | Counter(classes)).items() if times > 1]
    if twice and listed != [*classes]:
        return [
            f'{len(twice)} class names occur more than once ({show(twice)}) '
            "in its categories or the dataset's metainfo; give every class "
            'a name of its own'
        ]
    every = layout not in ('coco', None)
    if every and len(names) != len(classes):
        return [f"it has {len(names)} categories, but the dataset's metainfo "
                f'names {len(classes)} classes; set metainfo=dict(classes='
                '...) to the names of the file, in its order']
    known = set(names)
    lost = [name for name in classes if name not in known]
    # LVIS datasets go by the place, so that a spelling does no harm there.
    if len(lost) > (len(classes) - 1 if every else 0):
        return [f"{len(lost)} of {len(classes)} classes of the dataset's "
                f'metainfo are not among its {len(names)} categories '
                f'(classes: {show(lost)}; categories: {show(names)}); set '
                'metainfo=dict(classes=...) to names of the file']
    return []


def _counts(images: Dict[int, Image], annotations: Sequence[Annotation],
            categories: Sequence[Category], chosen: Set[int],
            min_size: float) -> tuple:
    """Return the report's counts, unused categories, shares, federated."""
    shown: Dict[int, set] = defaultdict(set)  # image ids by category id
    held: Dict[int, set] = defaultdict(set)  # category ids by image id
    learned = 0
    for item in annotations:
        held[item.image_id].add(item.category_id)
        image = images.get(item.image_id)
        if (image is not None and item.category_id in chosen
                and min(image.height, image.width) >= min_size
                and is_learned(item, image)):
            shown[item.category_id].add(item.image_id)
            learned += 1
    number = {item.id: len(shown[item.id]) for item in categories}
    groups = Counter(
        item.frequency or ('r' if number[item.id] <= RARE else
                           'c' if number[item.id] <= COMMON else 'f')
        for item in categories)
    wanted = [item for item in categories if item.id in chosen]
    unused = [item.name for item in wanted if not number[item.id]]
    empty = len(images.keys() - held.keys())
    counts = dict(
        images=len(images), annotations=len(annotations),
        unlearned_annotations=len(annotations) - learned,
        categories=len(categories), images_without_annotations=empty,
        unused_categories=len(unused), rare=groups['r'], common=groups['c'],
        frequent=groups['f'])
    federated = any(
        not chosen <= held[image.id].union(image.neg_category_ids)
        for image in images.values() if image.neg_category_ids is not None)
    annotated = max(len(images) - empty, 1)
    return counts, unused, [number[item.id] / annotated
                            for item in wanted], federated
