"""Reading and checking list files, one ``path label`` per line."""
import os.path as osp
from collections import Counter, defaultdict
from typing import Dict, List, NamedTuple, Sequence, Set

import mmengine
import numpy as np
from mmengine.fileio import LocalBackend, get_file_backend

from apa_mm.data.image_files import missing_files


class ListFile(NamedTuple):
    """The N samples of a list file."""

    name: str  # path of the list file, for messages
    paths: List[str]  # as they stand in the file
    labels: np.ndarray  # in [0, C), int64, (N,)
    lines: List[int]  # line number of every sample, from 1


def read_list_file(path: str, num_classes: int) -> ListFile:
    """Read ``path label`` lines; blank lines are skipped.

    Path and label are separated by white space; the path itself may have
    blanks inside. Labels start at 0.

    Raises:
        ValueError: If the file is missing, no text or empty, a line is not
            ``path label``, or a label is out of range.
    """
    try:
        text = mmengine.list_from_file(path)
    except (FileNotFoundError, IsADirectoryError):
        raise ValueError(f'list file {path} does not exist; set ann_file and '
                         'data_root to where the lists lie') from None
    except UnicodeDecodeError:
        raise ValueError(f'list file {path} is no text file; it must hold '
                         'one "path label" per line') from None
    paths, labels, lines = [], [], []
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        words = line.strip().rsplit(None, 1)
        if len(words) != 2 or not words[1].lstrip('+-').isdecimal():
            raise ValueError(f'line {number} of {path} is {line!r}, but must '
                             'be "path label" with a whole number as label')
        label = int(words[1])
        if not 0 <= label < num_classes:
            raise ValueError(
                f'line {number} of {path} has label {label}, but labels must '
                f'be in [0, {num_classes}); is the list of this data set?')
        paths.append(words[0])
        labels.append(label)
        lines.append(number)
    if not paths:
        raise ValueError(f'list file {path} has no samples')
    return ListFile(str(path), paths, np.array(labels, dtype=np.int64), lines)


def check_images(samples: ListFile, root: str) -> None:
    """Raise ValueError if images are missing; only looks at a local disk."""
    if not isinstance(get_file_backend(root), LocalBackend):
        return
    if missing := missing_files(root, samples.paths):
        line = samples.lines[samples.paths.index(missing[0])]
        raise ValueError(
            f'{len(missing)} of {len(samples.paths)} images in {samples.name} '
            f'do not exist; the first is {osp.join(root, missing[0])} (line '
            f'{line}); set data_root and data_prefix to where the paths start')


def folder_names(paths: Sequence[str], labels: np.ndarray,
                 num_classes: int) -> List[str]:
    """Name every class after the folder that holds its images.

    A class without images, with images in several folders, or in another
    class's folder is named by its label.

    Example:
        >>> folder_names(['a/cat/1.jpg', 'a/dog/1.jpg'], np.array([0, 2]), 3)
        ['cat', '1', 'dog']
    """
    seen: Dict[int, Set[str]] = defaultdict(set)
    for path, label in zip(paths, labels.tolist(), strict=True):
        seen[label].add(osp.basename(osp.dirname(path)))
    uses = Counter(name for names in seen.values() for name in names)
    result = []
    for label in range(num_classes):
        name = next(iter(seen[label]), '')
        unique = len(seen[label]) == 1 and name and uses[name] == 1
        result.append(name if unique else str(label))
    return result
