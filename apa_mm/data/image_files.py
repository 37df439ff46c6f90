"""The image files behind an annotation file."""
import os
from typing import List, Optional, Sequence, Set, Tuple

from apa_mm.data.annotations import Image
from apa_mm.utils.tables import show

#: What LVISV1Dataset cuts off ``coco_url`` to get the image's path.
COCO_URL = 'http://images.cocodataset.org/'


def image_name(image: Image, layout: Optional[str] = 'coco') -> str:
    """Return an image's path below the image folder, as mmdet reads it."""
    if layout == 'lvis_v1':
        return image.coco_url.replace(COCO_URL, '')
    if layout == 'lvis_v0.5' and image.file_name.startswith('COCO'):
        return image.file_name[-16:]  # COCO 2014's name in COCO 2017
    return image.file_name


def missing_files(folder: str, names: Sequence[str]) -> List[str]:
    """Return the names (relative paths) below ``folder`` without a file.

    Every folder is listed once, which for 100,000 files is far cheaper than
    one look per file.
    """
    parts = [os.path.split(name) for name in names]
    present = {parent: _listing(os.path.join(folder, parent))
               for parent in {parent for parent, _ in parts}}
    return [name for name, (parent, base) in zip(names, parts, strict=True)
            if base not in present[parent]]


def _listing(folder: str) -> Set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except (OSError, ValueError):  # no such folder, or a name with a NUL
        return set()


def missing_problems(folder: str,
                     names: Sequence[str]) -> Tuple[int, List[str]]:
    """Count the images that are not there, and say how to mend it."""
    missing = missing_files(folder, names)
    if not missing:
        return 0, []
    if not os.path.isdir(folder):
        text = (f'its image folder {folder} does not exist; set data_root and '
                'data_prefix to where the images are')
    else:
        text = (f'{len(missing)} of its {len(names)} images are not in '
                f'{folder} (first: {show(missing)}); complete the images or '
                'correct data_prefix')
    return len(missing), [text]
