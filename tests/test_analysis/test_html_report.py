"""The report: everything in one page, and a real browser shows it."""
import base64
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from apa_mm.analysis import AnalysisError
from apa_mm.analysis.html_report import (MAX_ROWS, find_runs, render,
                                         write_report)
from apa_mm.analysis.runs import View, write_view

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
RED = (200, 30, 30)


def red_picture(path):
    Image.fromarray(np.full((120, 160, 3), RED, np.uint8)).save(path,
                                                                format='PNG')


def run(folder, tool='logits', **kwargs):
    rows = kwargs.pop('rows', [dict(run='<b>&', value=0.123456, n=2)])
    return write_view(tool, View(**dict(
        dict(title=f'All of {tool}', text='How to read', metrics={},
             rows=rows, summary=rows, pictures={'p.png': red_picture},
             notes=['mind the gap']), **kwargs)), str(folder))


def test_the_page_is_self_contained(tmp_path):
    run(tmp_path / 'runs' / 'logits')
    page = write_report([str(tmp_path / 'runs')], str(tmp_path / 'html'))
    text = page.read_text()
    assert page.name == 'index.html'
    sources = re.findall(r'(?:src|href|url)\s*[=(]\s*"?([^" >)]*)', text)
    assert sources and all(s.startswith(('data:', '#')) for s in sources)
    assert '<script' not in text and '://' not in text
    data = re.search(r'data:image/png;base64,([^"]*)', text)[1]
    picture = tmp_path / 'runs' / 'logits' / 'p.png'
    assert base64.b64decode(data) == picture.read_bytes()


def test_the_page_has_title_text_notes_and_table(tmp_path):
    text = render([run(tmp_path / 'a')], 'A < B')
    assert '<h1>A &lt; B</h1>' in text
    for part in ('All of logits', 'How to read', 'mind the gap', '0.1235',
                 '&lt;b&gt;&amp;', '|  value |'):
        assert part in text
    assert '<b>' not in text


def test_parts_come_in_the_readers_order(tmp_path):
    for tool in ('gradcam', 'attention', 'functions'):
        run(tmp_path / 'runs' / tool, tool)
    names = [p.name for p in find_runs([str(tmp_path / 'runs')])]
    assert names == ['functions', 'attention', 'gradcam']
    again = find_runs([str(tmp_path / 'runs' / 'gradcam'),
                       str(tmp_path / 'runs')])
    assert [p.name for p in again] == names


def test_long_tables_are_cut(tmp_path):
    rows = [dict(run='a', value=float(i)) for i in range(MAX_ROWS + 5)]
    text = render([run(tmp_path / 'a', rows=rows)], 'Long')
    assert text.count('| a ') == MAX_ROWS
    assert '5 more lines in the CSV' in text


def test_nothing_is_overwritten(tmp_path):
    folder = str(run(tmp_path / 'a'))
    pages = [write_report([folder], str(tmp_path / 'html')) for _ in '12']
    assert [p.parent.name for p in pages] == ['html', 'html-2']


def test_folders_without_an_analysis(tmp_path):
    with pytest.raises(AnalysisError, match='is no folder'):
        find_runs([str(tmp_path / 'gone')])
    with pytest.raises(AnalysisError, match='has no analysis: .* expected'):
        find_runs([str(tmp_path)])
    (tmp_path / 'metrics.json').write_text('{"lvis/bbox_AP": 1}')
    with pytest.raises(AnalysisError, match='has no analysis'):
        find_runs([str(tmp_path)])
    (tmp_path / 'metrics.json').write_text('{')
    with pytest.raises(AnalysisError, match='cannot be read'):
        find_runs([str(tmp_path)])


def test_a_browser_shows_the_picture(tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip('no chromium on this machine: apt-get install chromium')
    page = write_report([str(run(tmp_path / 'a'))], str(tmp_path / 'html'))
    shot = tmp_path / 'shot.png'
    subprocess.run([
        browser, '--headless', '--no-sandbox', '--disable-gpu',
        '--hide-scrollbars', '--window-size=1000,900',
        f'--user-data-dir={tmp_path / "profile"}', f'--screenshot={shot}',
        page.as_uri()
    ], check=True, capture_output=True, timeout=120)
    pixels = np.asarray(Image.open(shot).convert('RGB')).astype(int)
    red = (np.abs(pixels - RED).max(axis=2) < 12).sum()
    assert red == pytest.approx(120 * 160, rel=0.05)
    dark = (pixels.max(axis=2) < 110).mean()
    assert 0.002 < dark < 0.2  # there is text on white
