"""One HTML page from the folders of some analyses, with nothing outside."""
import base64
import html
import json
from pathlib import Path
from typing import Any, Dict, List, Sequence

from .errors import AnalysisError
from .runs import METRICS_FILE, cell_text, new_folder

__all__ = ['find_runs', 'render', 'write_report']

PAGE_FILE = 'index.html'
#: Longer tables are cut; the CSV has all.
MAX_ROWS = 40
#: The order in which a reader wants them.
ORDER = ('functions', 'parameters', 'attention', 'logits', 'collapse',
         'calibration', 'gradcam')
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1b1b1b;
  max-width: 1180px; margin: 1.5rem auto; padding: 0 1rem; }
h1 { margin-bottom: .2rem; } h2 { margin-top: 2.2rem;
  border-top: 1px solid #bbb; padding-top: .8rem; }
img { max-width: 100%; height: auto; border: 1px solid #ddd; }
table { border-collapse: collapse; font-size: 13px; margin: .6rem 0; }
th, td { padding: .15rem .6rem; border-bottom: 1px solid #ddd;
  text-align: left; white-space: nowrap; }
th { border-bottom: 2px solid #888; } td.number { text-align: right;
  font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; } .note { border-left: 4px solid #c79a00;
  padding-left: .6rem; } .small { color: #555; font-size: 13px; }
nav a { margin-right: .9rem; }
"""


def find_runs(folders: Sequence[str]) -> List[Path]:
    """List the analyses in some folders.

    Args:
        folders (Sequence[str]): Folders that an analysis wrote, or folders of
            such folders.

    Returns:
        list[Path]: Folders with a metrics.json, in the reader's order; of
        several of one kind all are kept, in the order of their names.

    Raises:
        AnalysisError: If a folder is not there or has no analysis.
    """
    found: List[Path] = []
    for name in folders:
        folder = Path(name)
        if not folder.is_dir():
            raise AnalysisError(f'{name} is no folder; name folders that '
                                'tools/analyze.py has written')
        files = [folder / METRICS_FILE] if (folder / METRICS_FILE).is_file(
        ) else sorted(folder.glob(f'*/{METRICS_FILE}'))
        files = [f for f in files if 'tool' in _read(f)]
        if not files:
            raise AnalysisError(
                f'{name} has no analysis: a {METRICS_FILE} of '
                'tools/analyze.py was expected in it or one level below; '
                'run tools/analyze.py attention ... first')
        found += [f.parent for f in files if f.parent not in found]
    return sorted(found, key=lambda path: _rank(path))


def _rank(folder: Path) -> int:
    tool = _read(folder / METRICS_FILE)['tool']
    return ORDER.index(tool) if tool in ORDER else len(ORDER)


def _read(path: Path) -> Dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise AnalysisError(f'{path} cannot be read ({error}); run the '
                            'analysis again') from None
    return record if isinstance(record, dict) else {}


def write_report(folders: Sequence[str], out: str,
                 title: str = 'What the network learned') -> Path:
    """Write the page to a new folder.

    Args:
        folders (Sequence[str]): See :func:`find_runs`.
        out (str): Folder; if it is there a new one is made beside it.
        title (str): Heading of the page.

    Returns:
        Path: The page.

    Raises:
        AnalysisError: See :func:`find_runs`.
    """
    runs = find_runs(folders)
    page = render(runs, title)
    path = new_folder(out) / PAGE_FILE
    path.write_text(page, encoding='utf-8')
    return path


def render(runs: Sequence[Path], title: str) -> str:
    """Return the page: pictures as data URIs, no script, no link outside.

    Args:
        runs (Sequence[Path]): Folders of analyses.
        title (str): Heading of the page.

    Returns:
        str: HTML.
    """
    sections, links = [], []
    for number, run in enumerate(runs, 1):
        record = _read(run / METRICS_FILE)
        heading = html.escape(str(record.get('title', record['tool'])))
        links.append(f'<a href="#part{number}">{heading}</a>')
        sections.append(f'<h2 id="part{number}">{heading}</h2>\n'
                        + _section(run, record))
    heading = html.escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<title>{heading}</title>\n<style>{STYLE}</style></head>\n<body>\n'
        f'<h1>{heading}</h1>\n<nav>{" ".join(links)}</nav>\n'
        + '\n'.join(sections) + '\n</body></html>\n')


def _section(run: Path, record: Dict[str, Any]) -> str:
    parts = [f'<p>{html.escape(str(record.get("text", "")))}</p>']
    for note in record.get('notes', ()):
        parts.append(f'<p class="note">{html.escape(str(note))}</p>')
    for name in record.get('pictures', ()):
        # Only what lies in the folder itself.
        data = base64.b64encode((run / Path(name).name).read_bytes())
        parts.append(f'<p><img alt="{html.escape(name)}" '
                     f'src="data:image/png;base64,{data.decode()}"></p>')
    parts.append(_table(record.get('summary', [])))
    settings = record.get('settings', {})
    shown = [f'{key}: {value}' for key, value in settings.items()
             if value not in (None, {}, [])]
    parts.append(
        f'<p class="small">{html.escape(record["tool"])}, '
        f'{html.escape(str(record.get("time", "")))}, '
        f'apa_mm {html.escape(str(record.get("apa_mm", "")))}. '
        f'{html.escape("; ".join(shown))}</p>')
    return '\n'.join(parts)


def _table(rows: List[Dict[str, Any]]) -> str:
    if not rows:
        return ''
    head = ''.join(f'<th>{html.escape(str(name))}</th>' for name in rows[0])
    lines = []
    for row in rows[:MAX_ROWS]:
        cells = []
        for value in row.values():
            kind = '' if isinstance(value, str) else ' class="number"'
            cells.append(f'<td{kind}>{html.escape(cell_text(value))}</td>')
        lines.append(f'<tr>{"".join(cells)}</tr>')
    more = '' if len(rows) <= MAX_ROWS else (
        f'<p class="small">{len(rows) - MAX_ROWS} more lines in the CSV.</p>')
    return (f'<div class="wide"><table><tr>{head}</tr>\n'
            + '\n'.join(lines) + f'</table></div>{more}')
