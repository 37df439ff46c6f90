"""The one reader of COCO-, LVIS- and V3Det-style annotation files.

The structs are the schema of all three: a key that is not listed is skipped,
one without a value reads as None. Only a file that does not fit is decoded a
second time, to tell which entries are wrong.
"""
import json
import os.path as osp
import re
import reprlib
from collections import defaultdict
from mmap import ACCESS_READ, mmap
from typing import (Annotated, Any, Dict, List, Literal, Optional, Sequence,
                    Tuple, Union)

import msgspec
from mmengine.fileio import get
from msgspec import Meta, Raw, Struct

#: What arrays hold; beyond, evaluators would count wrongly or break off.
Id = Annotated[int, Meta(ge=-2**63, le=2**63 - 1)]
Length = Annotated[float, Meta(ge=0)]
Size = Annotated[float, Meta(gt=0)]
Flag = Union[bool, int, None]
NOTHING = Raw(b'null')
#: What decoding raises, also for JSON that is nested too deeply.
FAULTS = (msgspec.MsgspecError, ValueError, RecursionError)

#: What each key must hold, for messages.
EXPECTED = dict(
    id='a whole number of 64 bits',
    image_id='the id of an image, a whole number',
    category_id='the id of a category, a whole number',
    bbox='4 finite numbers [x, y, width, height] without a negative size',
    area='a finite number of pixels, 0 or more',
    iscrowd='0 or 1',
    ignore='0 or 1',
    height='a positive number of pixels',
    width='a positive number of pixels',
    frequency="one of 'r', 'c', 'f'",
    image_count='a whole number, 0 or more',
    neg_category_ids='a list of category ids',
    not_exhaustive_category_ids='a list of category ids',
    segmentation='polygons [[x1, y1, x2, y2, x3, y3, ...], ...] of 6 or more '
    'numbers, an even count each, or a run-length code of the size of the '
    'image')
_NOT_FINITE = re.compile('NaN|Infinity')


class AnnotationError(ValueError):
    """A file that does not fit the schema; one sentence per problem."""

    def __init__(self, problems: List[str]) -> None:
        super().__init__('; '.join(problems))
        self.problems = problems


class Image(Struct, gc=False):
    """An entry of 'images'; the two lists of category ids are LVIS's."""

    id: Optional[Id] = None
    height: Optional[Size] = None
    width: Optional[Size] = None
    file_name: Optional[str] = None
    coco_url: Optional[str] = None
    neg_category_ids: Optional[List[Id]] = None
    not_exhaustive_category_ids: Optional[List[Id]] = None


class Annotation(Struct, gc=False):
    """An entry of 'annotations'; ``segmentation`` is still JSON."""

    id: Optional[int] = None
    image_id: Optional[Id] = None
    category_id: Optional[Id] = None
    bbox: Optional[Tuple[float, float, Length, Length]] = None
    area: Optional[Length] = None
    iscrowd: Flag = None
    ignore: Flag = None
    segmentation: Raw = NOTHING


class Category(Struct, gc=False):
    """An entry of 'categories'; frequency and image_count are LVIS's."""

    id: Optional[Id] = None
    name: Optional[str] = None
    frequency: Optional[Literal['r', 'c', 'f']] = None
    image_count: Optional[Annotated[int, Meta(ge=0, le=2**63 - 1)]] = None


class Annotations(Struct, gc=False):
    """What a file holds; None for a section that it lacks."""

    images: Optional[List[Image]] = None
    annotations: Optional[List[Annotation]] = None
    categories: Optional[List[Category]] = None


class _Categories(Struct):
    categories: Optional[List[Category]] = None


#: What a file's sections are lists of.
SECTIONS = dict(images=Image, annotations=Annotation, categories=Category)


def read_annotations(path: str,
                     backend_args: Optional[dict] = None) -> Annotations:
    """Read an annotation file from a path or URL, in its order.

    Raises:
        FileNotFoundError: If there is no such file.
        AnnotationError: If it is not JSON or does not fit the schema.
    """
    return parse_annotations(get(path, backend_args=backend_args))


def read_categories(path: str,
                    backend_args: Optional[dict] = None) -> List[Category]:
    """Read the categories alone, which takes a second where the rest is large.

    Raises as :func:`read_annotations` does.
    """
    try:
        if osp.isfile(path):  # mapped: ranks share the memory
            with open(path, 'rb') as file:
                data = mmap(file.fileno(), 0, access=ACCESS_READ)
        else:
            data = get(path, backend_args=backend_args)
        content = msgspec.json.decode(data, type=_Categories)
    except FAULTS as error:
        raise AnnotationError([_not_json(error)]) from error
    return content.categories or []


def parse_annotations(data: bytes) -> Annotations:
    """Read the bytes of an annotation file."""
    try:
        content = msgspec.json.decode(data, type=Annotations)
        if not data.isascii():
            data.decode('utf-8')  # what is skipped is not looked at
        return content
    except FAULTS as error:
        raise AnnotationError(_problems(data, error)) from error


def _problems(data: bytes, error: Exception) -> List[str]:
    try:
        content = _untyped(data)
    except FAULTS as cause:
        return [_not_json(cause)]
    if not isinstance(content, dict):
        return [f'it holds a {type(content).__name__}; a COCO-style file '
                "holds an object with 'images', 'annotations' and "
                "'categories'"]
    found = []
    for section, kind in SECTIONS.items():
        items = content.get(section)
        if isinstance(items, list):
            found += _unusable(section, kind, items)
        elif items is not None:
            found.append(f'{section!r} must be a list, but is '
                         f'{reprlib.repr(items)}; rewrite the file')
    return found or [_not_json(error)]


def _not_json(error: Exception) -> str:
    if isinstance(error, RecursionError):
        error = 'too deeply nested'
    return (f'it is not JSON in UTF-8 ({error}); it may be cut off or another '
            'file, get it again')


def _untyped(data: bytes) -> Any:
    """Decode as Python does, which takes NaN; that becomes the text 'NaN'."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return json.loads(data.decode('utf-8'), parse_constant=str)


def _unusable(section: str, kind: type, items: list) -> List[str]:
    """Return one sentence for every key that some entries hold wrongly."""
    bad: Dict[str, list] = defaultdict(list)
    for index, item in enumerate(items):
        shape = isinstance(item, dict) and item.pop('segmentation', None)
        try:
            msgspec.convert(item, kind)
        except msgspec.ValidationError as error:
            key = re.search(r'\$\.(\w+)', str(error))
            bad[key.group(1) if key else ''].append((index, item))
        if shape and _NOT_FINITE.search(str(shape)):
            item['segmentation'] = shape
            bad['segmentation'].append((index, item))
    texts = []
    for key, entries in bad.items():
        indices, (first, *_) = zip(*entries, strict=True)
        first_id, value = (first.get('id'), first.get(key, first)) \
            if isinstance(first, dict) else (None, first)
        texts.append(entries_text(section, len(items), key, indices, first_id,
                                  value))
    return texts


def entries_text(section: str, total: int, key: str, indices: Sequence[int],
                 first_id: Any, value: Any) -> str:
    """Say which entries hold a key wrongly, and how to mend it.

    ``first_id`` and ``value`` are of the first; ``key`` is '' for entries
    that are no objects at all.
    """
    what = f'have an unusable {key!r}' if key else 'are no objects'
    named = '' if first_id is None else f' with id {reprlib.repr(first_id)}'
    mend = EXPECTED.get(key, 'text' if key else 'an object with its keys')
    return (f'{len(indices)} of {total} entries of {section!r} {what} (the '
            f'first is entry {indices[0]}{named}: {reprlib.repr(value)}); '
            f'write {mend}')
