"""Miniatures of data sets in their true formats, with all their classes."""
import hashlib
import pickle
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

import numpy as np
from PIL import Image


def write_list(path: Path, lines: Sequence[Tuple[str, int]]) -> Path:
    """Write a list file, one ``path label`` per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{name} {label}\n' for name, label in lines))
    return path


def write_listed_images(root: Path, lines: Sequence[Tuple[str, int]],
                        size: int = 16) -> None:
    """Write the images of a list below ``root``, all with one content."""
    pixels = np.random.default_rng(0).integers(
        0, 256, (size, size, 3), dtype=np.uint8)
    source = root / 'image.jpg'
    root.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(source)
    data = source.read_bytes()
    source.unlink()
    for name, _ in lines:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def image_list(num_classes: int, counts: Sequence[int],
               pattern: str) -> List[Tuple[str, int]]:
    """Return ``counts[c % len(counts)]`` lines for every class c."""
    return [(pattern.format(c=c, i=i), c) for c in range(num_classes)
            for i in range(counts[c % len(counts)])]


def write_cifar(root: Path, num_classes: int,
                per_class: int) -> Dict[str, str]:
    """Write CIFAR's python batches; return the md5 of every file by name.

    All training images of class c are filled with c, so that a wrong order
    of labels or channels is seen.
    """
    ten = num_classes == 10
    folder = root / ('cifar-10-batches-py' if ten else 'cifar-100-python')
    folder.mkdir(parents=True, exist_ok=True)
    train = [f'data_batch_{i}' for i in range(1, 6)] if ten else ['train']
    test = 'test_batch' if ten else 'test'
    md5 = {}
    for name in [*train, test]:
        each = per_class // len(train) if name != test else 2
        labels = np.repeat(np.arange(num_classes), each)
        labels = np.random.RandomState(len(md5)).permutation(labels)
        pixels = np.zeros((len(labels), 3, 32, 32), dtype=np.uint8)
        pixels[:, 0] = labels[:, None, None]
        pixels[:, 2] = 200
        entry = dict(
            data=pixels.reshape(len(labels), -1),
            batch_label=f'batch {name}',
            filenames=[f'{i}.png' for i in range(len(labels))])
        entry['labels' if ten else 'fine_labels'] = labels.tolist()
        if not ten:
            entry['coarse_labels'] = (labels // 5).tolist()
        # Protocol 2 is what the published files have.
        data = pickle.dumps(entry, protocol=2)
        (folder / name).write_bytes(data)
        md5[name] = hashlib.md5(data).hexdigest()
    return md5
