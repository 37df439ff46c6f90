"""Check a COCO- or LVIS-style annotation dict against what reads it.

Pure functions on a dict and an image folder: they read no config and know no
library. :mod:`apa_mm.preflight.job` calls them before training.
"""
import os
from collections import Counter, defaultdict
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Set

from apa_mm.utils.checks import check_choice

__all__ = [
    'AnnotationReport', 'check_annotations', 'image_name', 'missing_files',
    'show'
]

LAYOUTS = ('coco', 'lvis_v0.5', 'lvis_v1')

#: What LVISV1Dataset cuts off ``coco_url`` to get the image's path.
COCO_URL = 'http://images.cocodataset.org/'
#: How many names a message shows before it only counts.
SHOWN = 3
_SECTIONS = ('images', 'annotations', 'categories')
_LVIS_IMAGE_KEYS = ('neg_category_ids', 'not_exhaustive_category_ids')


class AnnotationReport(NamedTuple):
    """What :func:`check_annotations` found.

    Attributes:
        problems (list[str]): One sentence per problem: what was found, what
            was expected, how to mend; empty for a sound file.
        counts (dict[str, int]): ``images``, ``annotations``, ``categories``,
            ``images_without_annotations``, ``unused_categories`` and, if a
            folder was given, ``missing_images``.
        unused_categories (list[str]): Names of the categories that no
            annotation has.
    """

    problems: List[str]
    counts: Dict[str, int]
    unused_categories: List[str]


def show(items: Iterable) -> str:
    """Return the first three items as text, with dots if there are more."""
    items = list(items)
    text = ', '.join(str(item) for item in items[:SHOWN])
    return text + (', ...' if len(items) > SHOWN else '')


def check_annotations(annotation: dict,
                      image_folder: Optional[str] = None,
                      *,
                      layout: str = 'coco',
                      classes: Optional[Sequence[str]] = None,
                      lvis_metric: bool = False,
                      masks: bool = False,
                      need_annotations: bool = True) -> AnnotationReport:
    """Check an annotation dict and, if a folder is given, its images.

    Args:
        annotation (dict): The content of the annotation file.
        image_folder (str, optional): Folder that image names are relative
            to. None leaves the images unchecked.
        layout (str): Who reads it: 'coco', 'lvis_v0.5' or 'lvis_v1'. It
            says which key names an image (:func:`image_name`), and whether
            classes are looked up by name or, as mmdet's LVIS datasets do,
            every category of the file becomes a class in the file's order.
        classes (Sequence[str], optional): Class names that the dataset is
            told to use.
        lvis_metric (bool): Ask for the keys that LVIS evaluation reads.
        masks (bool): Ask for ``segmentation`` in every annotation.
        need_annotations (bool): False for a test set without labels.

    Returns:
        AnnotationReport: Problems, counts and categories never used.

    Raises:
        ValueError: If ``layout`` is none of the three.

    Example:
        >>> report = check_annotations(dict(images=[], annotations=[]))
        >>> report.problems[0]
        "it lacks 'categories'; a COCO-style file has 'images', \
'annotations' and 'categories'"
    """
    check_choice('layout', layout, LAYOUTS)
    problems = _section_problems(annotation, need_annotations)
    if problems:
        return AnnotationReport(problems, {}, [])
    images = annotation['images']
    annotations = annotation.get('annotations', [])
    categories = annotation['categories']
    problems += _key_problems('images', images, [
        'id', 'height', 'width',
        'coco_url' if layout == 'lvis_v1' else 'file_name',
        *(_LVIS_IMAGE_KEYS if lvis_metric else ())
    ])
    problems += _key_problems(
        'annotations', annotations,
        ['id', 'image_id', 'category_id', 'bbox', 'area'] +
        ['segmentation'] * masks)
    problems += _key_problems('categories', categories,
                              ['id', 'name'] + ['frequency'] * lvis_metric)
    if problems:
        return AnnotationReport(problems, {}, [])
    problems += _reference_problems(images, annotations, categories)
    problems += _class_problems(categories, classes, layout)
    used = {item['category_id'] for item in annotations}
    unused = [c['name'] for c in categories if c['id'] not in used]
    counts = dict(
        images=len(images),
        annotations=len(annotations),
        categories=len(categories),
        images_without_annotations=len({image['id'] for image in images} -
                                       {a['image_id'] for a in annotations}),
        unused_categories=len(unused))
    if image_folder is not None:
        names = [image_name(image, layout) for image in images]
        found = missing_files(image_folder, names)
        counts['missing_images'] = len(found)
        problems += _missing_problems(image_folder, found, len(names))
    return AnnotationReport(problems, counts, unused)


def image_name(image: dict, layout: str = 'coco') -> str:
    """Return an image's path below the image folder, as mmdet reads it.

    Args:
        image (dict): An entry of ``images``.
        layout (str): 'lvis_v1' takes ``coco_url`` without the server;
            'lvis_v0.5' takes ``file_name``, cut to the 16 characters of
            COCO 2017 if it is a name of COCO 2014; 'coco' takes
            ``file_name``.

    Returns:
        str: Relative path.
    """
    if layout == 'lvis_v1':
        return image['coco_url'].replace(COCO_URL, '')
    name = image['file_name']
    if layout == 'lvis_v0.5' and name.startswith('COCO'):
        return name[-16:]
    return name


def missing_files(folder: str, names: Sequence[str]) -> List[str]:
    """Return the names below ``folder`` for which there is no file.

    Every folder is listed once, which for 100,000 files is far cheaper than
    one look per file.

    Args:
        folder (str): Where the names start.
        names (Sequence[str]): Relative paths.

    Returns:
        list[str]: The names not found, in the given order.
    """
    wanted: Dict[str, Set[str]] = defaultdict(set)
    for name in names:
        wanted[os.path.dirname(name)].add(os.path.basename(name))
    present = {
        parent: _listing(os.path.join(folder, parent))
        for parent in wanted
    }
    return [
        name for name in names
        if os.path.basename(name) not in present[os.path.dirname(name)]
    ]


def _listing(folder: str) -> Set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _section_problems(annotation: dict, need_annotations: bool) -> List[str]:
    if not isinstance(annotation, dict):
        return [
            f'it holds a {type(annotation).__name__}; a COCO-style file holds '
            "a dict with 'images', 'annotations' and 'categories'"
        ]
    needed = [
        name for name in _SECTIONS if name != 'annotations' or need_annotations
    ]
    absent = [name for name in needed if name not in annotation]
    if absent:
        return [
            f'it lacks {_quote(absent)}; a COCO-style file has '
            "'images', 'annotations' and 'categories'"
        ]
    wrong = [
        name for name in _SECTIONS
        if not isinstance(annotation.get(name, []), list)
    ]
    if wrong:
        return [f'{_quote(wrong)} must be a list; rewrite the file']
    return [
        f"'{name}' is empty; nothing could be read from it, so check that it "
        'is the right file' for name in needed if not annotation[name]
    ]


def _quote(names: Sequence[str]) -> str:
    return ', '.join(f'{name!r}' for name in names)


def _key_problems(section: str, items: List[dict],
                  needed: Sequence[str]) -> List[str]:
    """Return one sentence for every key that some items lack."""
    lacking: Counter = Counter()
    example: Dict[str, int] = {}
    for index, item in enumerate(items):
        for key in needed:
            if key not in item:
                lacking[key] += 1
                example.setdefault(key, index)
    return [
        f"{number} of {len(items)} entries of '{section}' lack {key!r} (the "
        f"first is entry {example[key]}{_id_of(items[example[key]])}); "
        'add it to the file' for key, number in lacking.items()
    ]


def _id_of(item: dict) -> str:
    return f" with id {item['id']}" if 'id' in item else ''


def _reference_problems(images: List[dict], annotations: List[dict],
                        categories: List[dict]) -> List[str]:
    problems = []
    for section, items in (('images', images), ('annotations', annotations),
                           ('categories', categories)):
        number = Counter(item['id'] for item in items)
        twice = [key for key, times in number.items() if times > 1]
        if twice:
            problems.append(
                f"{len(twice)} ids of '{section}' occur more than once "
                f'({show(twice)}); give every entry an id of its own')
    for key, section, items in (('image_id', 'images', images),
                                ('category_id', 'categories', categories)):
        known = {item['id'] for item in items}
        lost = [a for a in annotations if a[key] not in known]
        if lost:
            values = dict.fromkeys(a[key] for a in lost)
            problems.append(
                f"the {key} of {len(lost)} annotations is not among the ids "
                f"of '{section}' ({show(values)}); remove them or add the "
                f'{section}')
    return problems


def _class_problems(categories: List[dict], classes: Optional[Sequence[str]],
                    layout: str) -> List[str]:
    if classes is None:
        return []
    names = [category['name'] for category in categories]
    if layout != 'coco':
        if len(names) == len(classes):
            return []
        return [
            f"it has {len(names)} categories, but the dataset's metainfo "
            f'names {len(classes)} classes; set metainfo=dict(classes=...) '
            'to the names of the file, in its order'
        ]
    lost = [name for name in classes if name not in set(names)]
    if not lost:
        return []
    return [
        f"{len(lost)} of {len(classes)} classes of the dataset's metainfo "
        f'are not among its {len(names)} categories (classes: {show(lost)}; '
        f'categories: {show(names)}); set metainfo=dict(classes=...) to names '
        'of the file'
    ]


def _missing_problems(folder: str, missing: List[str],
                      total: int) -> List[str]:
    if not missing:
        return []
    if not os.path.isdir(folder):
        return [
            f'its image folder {folder} does not exist; set data_root and '
            'data_prefix to where the images are'
        ]
    return [
        f'{len(missing)} of its {total} images are not in {folder} (first: '
        f'{show(missing)}); complete the images or correct data_prefix'
    ]
