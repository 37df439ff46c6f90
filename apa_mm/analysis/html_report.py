"""One HTML page from the folders of some analyses, with nothing outside."""
import base64
import json
from html import escape
from itertools import count
from pathlib import Path
from string import Template
from typing import Any, Dict, List, Sequence

from .errors import AnalysisError
from .runs import METRICS_FILE, format_rows, new_folder

PAGE_FILE = 'index.html'
#: Longer tables are cut; the CSV has all.
MAX_ROWS = 40
#: The order in which a reader wants them.
ORDER = ('functions', 'parameters', 'attention', 'logits', 'collapse',
         'calibration', 'gradcam')
PAGE = Template("""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>$title</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1180px;
  margin: 1.5rem auto; padding: 0 1rem; }
img { max-width: 100%; border: 1px solid #ddd; }
pre { overflow-x: auto; font-size: 13px; }
nav a { margin-right: .9rem; } .note { border-left: 4px solid #c79a00;
  padding-left: .6rem; } .small { color: #555; font-size: 13px; }
</style></head>
<body><h1>$title</h1>
<nav>$links</nav>
$sections
</body></html>
""")
SECTION = Template("""<h2 id="part$number">$title</h2>
<p>$text</p>
$notes
$pictures
<pre>$table</pre>
<p class="small">$origin</p>""")


def find_runs(folders: Sequence[str]) -> List[Path]:
    """List analyses in folders, or folders of these, in a reader's order."""
    runs: Dict[Path, str] = {}
    for name in folders:
        folder = Path(name)
        if not folder.is_dir():
            raise AnalysisError(f'{name} is no folder; name folders that '
                                'tools/analyze.py has written')
        own = folder / METRICS_FILE
        files = [own] if own.is_file() else sorted(
            folder.glob(f'*/{METRICS_FILE}'))
        tools = {file.parent: record['tool'] for file in files
                 if 'tool' in (record := _read(file))}
        if not tools:
            raise AnalysisError(
                f'{name} has no analysis: a {METRICS_FILE} was expected in it '
                'or one level below; run tools/analyze.py attention ... first')
        runs.update(tools)
    return sorted(runs, key=lambda run: (*ORDER, runs[run]).index(runs[run]))


def _read(path: Path) -> Dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise AnalysisError(f'{path} cannot be read ({error}); run the '
                            'analysis again') from None
    return record if isinstance(record, dict) else {}


def write_report(folders: Sequence[str], out: str,
                 title: str = 'What the network learned') -> Path:
    """Write the page of :func:`find_runs` to a new folder; return its path."""
    page = render(find_runs(folders), title)
    path = new_folder(out) / PAGE_FILE
    path.write_text(page, encoding='utf-8')
    return path


def render(runs: Sequence[Path], title: str) -> str:
    """Return the page: pictures as data URIs, no script, no link outside."""
    records = [_read(run / METRICS_FILE) for run in runs]
    return PAGE.substitute(
        title=escape(title),
        links=' '.join(f'<a href="#part{number}">{escape(record["title"])}</a>'
                       for number, record in enumerate(records, 1)),
        sections='\n'.join(map(_section, count(1), runs, records)))


def _section(number: int, run: Path, record: Dict[str, Any]) -> str:
    summary = record['summary']
    table = format_rows(summary[:MAX_ROWS])
    if len(summary) > MAX_ROWS:
        table += f'\n{len(summary) - MAX_ROWS} more lines in the CSV.'
    settings = [f'{key}: {value}' for key, value in record['settings'].items()
                if value not in (None, {}, [])]
    return SECTION.substitute(
        number=number, title=escape(record['title']),
        text=escape(record['text']), table=escape(table),
        notes='\n'.join(f'<p class="note">{escape(note)}</p>'
                        for note in record['notes']),
        pictures='\n'.join(_picture(run, name) for name in record['pictures']),
        origin=escape(f'{record["tool"]}, {record["time"]}, apa_mm '
                      f'{record["apa_mm"]}. {"; ".join(settings)}'))


def _picture(run: Path, name: str) -> str:
    # Only what lies in the folder itself.
    data = base64.b64encode((run / Path(name).name).read_bytes()).decode()
    return (f'<p><img alt="{escape(name)}" '
            f'src="data:image/png;base64,{data}"></p>')
