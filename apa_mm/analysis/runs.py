"""What an analysis leaves: a new folder with numbers, a table, pictures."""
import csv
import json
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

__all__ = [
    'View', 'default_name', 'format_rows', 'new_folder', 'write_view'
]

METRICS_FILE = 'metrics.json'


@dataclass
class View:
    """The outcome of one analysis.

    Args:
        title (str): A line for the report.
        text (str): What the pictures show and how to read them.
        metrics (dict): Numbers, nested at will; NaN becomes null.
        rows (list[dict]): The CSV; all with the same keys.
        summary (list[dict]): The short table for the terminal and report.
        pictures (dict[str, Callable]): Functions that draw to the path they
            are given, by file name.
        notes (list[str]): What a reader must know.
        settings (dict): What was asked for.
    """

    title: str
    text: str
    metrics: Dict[str, Any]
    rows: List[Dict[str, Any]]
    summary: List[Dict[str, Any]]
    pictures: Dict[str, Callable[[str], None]]
    notes: List[str] = field(default_factory=list)
    settings: Dict[str, Any] = field(default_factory=dict)


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
    """Make a folder that was not there: ``path``, ``path-2``, ``path-3``.

    Args:
        path (str): Where to.

    Returns:
        Path: The new, empty folder; nothing is ever overwritten.

    Raises:
        OSError: If it cannot be made.
    """
    number = 1
    while True:
        folder = Path(path if number == 1 else f'{path}-{number}')
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


def write_view(tool: str, view: View, out: str) -> Path:
    """Write an analysis to a new folder; metrics.json comes last.

    Args:
        tool (str): Name of the analysis, of the CSV and of the folder.
        view (View): The outcome.
        out (str): Folder, see :func:`new_folder`.

    Returns:
        Path: The folder.
    """
    from apa_mm import __version__
    folder = new_folder(out)
    for name, draw in view.pictures.items():
        draw(str(folder / name))
    _write_csv(view.rows, folder / f'{tool}.csv')
    record = dict(
        tool=tool,
        title=view.title,
        text=view.text,
        apa_mm=__version__,
        time=time.strftime('%Y-%m-%d %H:%M'),
        settings=view.settings,
        notes=view.notes,
        pictures=list(view.pictures),
        summary=view.summary,
        metrics=view.metrics)
    partial = folder / f'{METRICS_FILE}.partial'
    partial.write_text(
        json.dumps(_plain(record), indent=1, allow_nan=False) + '\n',
        encoding='utf-8')
    os.replace(partial, folder / METRICS_FILE)
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


def _write_csv(rows: Sequence[Dict[str, Any]], path: Path) -> None:
    with open(path, 'w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(
            file, list(rows[0]) if rows else [], lineterminator='\n')
        writer.writeheader()
        writer.writerows(
            {k: '' if _plain(v) is None else v for k, v in row.items()}
            for row in rows)


def format_rows(rows: Sequence[Dict[str, Any]]) -> str:
    """Format a table for the terminal; numbers to the right.

    Args:
        rows (Sequence[dict]): All with the same keys.

    Returns:
        str: A heading and one line per row; NaN and None show as a dash.

    Example:
        >>> print(format_rows([dict(run='a', ece=0.12345)]))
        run     ece
        a    0.1235
    """
    if not rows:
        return '(no rows)'
    cells = [list(rows[0])] + [[cell_text(v) for v in r.values()]
                               for r in rows]
    left = [isinstance(value, str) for value in rows[0].values()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return '\n'.join('  '.join(
        text.ljust(width) if is_left else text.rjust(width)
        for text, width, is_left in zip(line, widths, left, strict=True)
    ).rstrip() for line in cells)


def cell_text(value: Any) -> str:
    """Return a cell's text: 4 significant digits, a dash for nothing."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)
                         ):
        return '-'
    return f'{value:.4g}' if isinstance(value, float) else str(value)
