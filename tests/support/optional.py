"""Libraries of .venv/optional that tests import in their own process.

transformers and timm lie there too, and mmpretrain 1.2 fails to import where
it finds them: only what is asked for is put on the path.
"""
import atexit
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pkg_resources

FOLDER = Path(__file__).parents[2] / '.venv' / 'optional'
NOT_THERE = 'not installed (tools/test.sh puts it into .venv/optional)'


def offer(module: str, *patterns: str) -> bool:
    """Make an optional library importable; return whether it is.

    Args:
        module (str): What is imported.
        *patterns (str): Its files and those of what it needs.
    """
    # The folder is the official environment's: others have other versions.
    there = Path(sys.prefix) == FOLDER.parent and (FOLDER / module).is_dir()
    if find_spec(module) is None and there:
        links = Path(tempfile.mkdtemp(prefix='apa_mm-optional-'))
        atexit.register(shutil.rmtree, links, ignore_errors=True)
        for path in {p for each in patterns for p in FOLDER.glob(each)}:
            (links / path.name).symlink_to(path)
        sys.path.append(str(links))
        pkg_resources.working_set.add_entry(str(links))
    return find_spec(module) is not None


def has_mmseg() -> bool:
    """Return whether mmsegmentation can be imported."""
    return offer('mmseg', 'mmseg*', 'ftfy*', 'prettytable*', 'regex*',
                 'wcwidth*')
