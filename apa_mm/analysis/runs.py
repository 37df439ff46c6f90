"""What an analysis leaves: a new folder with numbers, a table, pictures."""
import csv
import json
import math
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

from apa_mm.utils.files import replacing
from apa_mm.utils.tables import text_table

METRICS_FILE = 'metrics.json'
#: One line of a table, by column.
Row = Dict[str, Any]


@dataclass
class View:
    """The outcome of one analysis.

    ``metrics`` are nested at will, with NaN as null; ``rows`` are the CSV,
    ``summary`` the short table for terminal and report, both with the same
    keys in all lines; ``pictures`` are what draws to a path, by file name.
    """

    title: str
    text: str
    metrics: Dict[str, Any] = field(default_factory=dict)
    rows: List[Row] = field(default_factory=list)
    summary: List[Row] = field(default_factory=list)
    pictures: Dict[str, Callable[[str], None]] = field(default_factory=dict)
    notes: List[str] = field(default_factory=list)
    settings: Dict[str, Any] = field(default_factory=dict)


def grouped(rows: Sequence[Row], *keys: str) -> Dict[tuple, List[Row]]:
    """Return rows by their values of some keys, in the order of the rows."""
    groups: Dict[tuple, List[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def default_name(checkpoint: str) -> str:
    """Return a short name for a checkpoint: its run and its file.

    Example:
        >>> default_name('work_dirs/demo/apa-gol/train/iter_500.pth')
        'apa-gol/iter_500'
    """
    path = Path(checkpoint)
    folders = [f for f in path.parent.parts if f not in ('train', '.')]
    return '/'.join(folders[-1:] + [path.stem])


def new_folder(path: str) -> Path:
    """Make a folder that was not there: ``path``, ``path-2``, ``path-3``."""
    for number in count(1):
        folder = Path(path if number == 1 else f'{path}-{number}')
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue


def write_view(tool: str, view: View, out: str) -> Path:
    """Write an analysis to a new folder like ``out``; metrics.json is last."""
    from apa_mm import __version__
    folder = new_folder(out)
    for name, draw in view.pictures.items():
        draw(str(folder / name))
    with open(folder / f'{tool}.csv', 'w', newline='',
              encoding='utf-8') as file:
        writer = csv.DictWriter(file, list(view.rows[0]) if view.rows else [],
                                lineterminator='\n')
        writer.writeheader()
        writer.writerows(
            {k: '' if _plain(v) is None else v for k, v in row.items()}
            for row in view.rows)
    record = dict(
        tool=tool, title=view.title, text=view.text, apa_mm=__version__,
        time=time.strftime('%Y-%m-%d %H:%M'), settings=view.settings,
        notes=view.notes, pictures=list(view.pictures), summary=view.summary,
        metrics=view.metrics)
    with replacing(folder / METRICS_FILE) as partial:
        partial.write_text(
            json.dumps(_plain(record), indent=1, allow_nan=False) + '\n',
            encoding='utf-8')
    return folder


def _plain(value: Any) -> Any:
    """Make a value fit for strict JSON: no NaN, no numpy, no tuples."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, 'tolist'):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def format_rows(rows: Sequence[Row]) -> str:
    """Format a table of rows with the same keys; NaN and None are a dash."""
    if not rows:
        return '(no rows)'

    def cell(value: Any) -> str:
        value = _plain(value)
        return '-' if value is None else (
            f'{value:.4g}' if isinstance(value, float) else str(value))

    return text_table(list(rows[0]),
                      [[cell(v) for v in row.values()] for row in rows])
