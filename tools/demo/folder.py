"""Keep Digits-LVIS in a folder: write it whole, reuse it, repair it."""
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Dict

import cv2
from mmengine.logging import print_log

from .digits_lvis import CLASSES, DigitsLVISSettings, draw_splits
from .federated import list_absent

__all__ = ['SETTINGS_FILE', 'is_complete', 'make_digits_lvis']

#: Written last; names the settings and the size of every file.
SETTINGS_FILE = 'settings.json'
#: Raised whenever the same settings come to give other files.
FORMAT_VERSION = 3


def make_digits_lvis(folder: str, settings: DigitsLVISSettings) -> bool:
    """Write Digits-LVIS, unless the folder already holds exactly that.

    The set is written to a folder beside ``folder`` and then moved, so
    ``folder`` never holds a part of it.

    Args:
        folder (str): Where the set belongs, e.g. ``data/digits_lvis``. It
            gets ``train/``, ``val/``, ``annotations/digits_lvis_train.json``,
            ``annotations/digits_lvis_val.json``, the same with every absent
            class as a verified negative, ``..._val_exhaustive.json``, and
            ``settings.json``.
        settings (DigitsLVISSettings): What the set shall hold.

    Returns:
        bool: Whether the set was made; False if it was there.

    Raises:
        ValueError: If ``folder`` holds something else, which is left alone,
            or if the digits do not fit on the images.
    """
    target = Path(folder).absolute()
    if is_complete(target, settings):
        print_log(f'{folder} holds this Digits-LVIS already', 'current')
        return False
    _check_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f'.{target.name}-partial-'
    for left_over in target.parent.glob(f'{prefix}*'):
        shutil.rmtree(left_over)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        _write(partial, settings)
        partial.chmod(0o755)  # mkdtemp makes a folder for its owner alone
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print_log(
        f'wrote {settings.num_train} train and {settings.num_val} val images '
        f'to {folder}', 'current')
    return True


def is_complete(folder: Path, settings: DigitsLVISSettings) -> bool:
    """Say whether a folder holds the whole set made with these settings.

    Args:
        folder (Path): The set's folder.
        settings (DigitsLVISSettings): What the set shall hold.

    Returns:
        bool: False too if a file is missing or has another size.
    """
    try:
        kept = json.loads((folder / SETTINGS_FILE).read_text())
        files = kept['files'].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    if kept.get('settings') != _identity(settings):
        return False
    return all((folder / name).is_file()
               and (folder / name).stat().st_size == size
               for name, size in files)


def _identity(settings: DigitsLVISSettings) -> dict:
    return dict(asdict(settings), format_version=FORMAT_VERSION)


def _check_replaceable(target: Path) -> None:
    """Refuse to delete anything that this module has not written."""
    if not target.exists() or (target / SETTINGS_FILE).is_file():
        return
    if not target.is_dir() or any(target.iterdir()):
        raise ValueError(
            f'{target} exists and is no Digits-LVIS folder (it lacks '
            f'{SETTINGS_FILE}), so it is left alone; delete it or name '
            'another folder')


def _write(folder: Path, settings: DigitsLVISSettings) -> None:
    """Write images and annotations, and the list of them last."""
    files: Dict[str, int] = {}
    (folder / 'annotations').mkdir()
    for name, split in draw_splits(settings).items():
        (folder / name).mkdir()
        for info, image in zip(
                split.annotations['images'], split.images, strict=True):
            path = folder / info['file_name']
            if not cv2.imwrite(str(path), image[..., ::-1]):  # to BGR
                raise OSError(f'{path} could not be written; check the disk')
            files[info['file_name']] = path.stat().st_size
        contents = {name: split.annotations}
        if name == 'val':
            contents['val_exhaustive'] = list_absent(
                split.annotations, range(1, len(CLASSES) + 1))
        for stem, content in contents.items():
            ann_file = f'annotations/digits_lvis_{stem}.json'
            (folder / ann_file).write_text(json.dumps(content))
            files[ann_file] = (folder / ann_file).stat().st_size
    (folder / SETTINGS_FILE).write_text(
        json.dumps(dict(settings=_identity(settings), files=files)))
