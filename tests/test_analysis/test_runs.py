"""Folders of analyses: new ones, strict JSON, CSV, tables."""
import csv
import json

import numpy as np
import pytest
from PIL import Image

from apa_mm.analysis.runs import (View, default_name, format_rows,
                                  new_folder, write_view)
from apa_mm.analysis.plot_style import LINE_STYLES, drawing, line_style


def view(**kwargs):
    rows = [dict(run='a', value=1.5, count=2),
            dict(run='b', value=float('nan'), count=np.int64(3))]
    return View(**dict(
        dict(title='Title', text='Text', metrics=dict(a=(1, float('inf'))),
             rows=rows, summary=rows,
             pictures={'p.png': lambda path: open(path, 'w').close()}),
        **kwargs))


def test_nothing_is_overwritten(tmp_path):
    folders = [new_folder(str(tmp_path / 'deep' / 'run')) for _ in range(3)]
    assert [f.name for f in folders] == ['run', 'run-2', 'run-3']
    (folders[0] / 'mine.txt').write_text('kept')
    assert write_view('logits', view(), str(folders[0])).name == 'run-4'
    assert [p.name for p in folders[0].iterdir()] == ['mine.txt']


def test_a_folder_holds_numbers_table_and_pictures(tmp_path):
    folder = write_view('logits', view(notes=['mind']), str(tmp_path / 'x'))
    assert {p.name for p in folder.iterdir()} == {
        'metrics.json', 'logits.csv', 'p.png'}

    def refuse(constant):
        raise AssertionError(f'{constant} is no JSON')

    record = json.loads((folder / 'metrics.json').read_text(),
                        parse_constant=refuse)
    assert record['metrics'] == {'a': [1, None]}
    assert record['summary'][1] == dict(run='b', value=None, count=3)
    assert record['tool'] == 'logits' and record['notes'] == ['mind']
    with open(folder / 'logits.csv') as file:
        assert list(csv.DictReader(file)) == [
            dict(run='a', value='1.5', count='2'),
            dict(run='b', value='', count='3')]


def test_a_failing_picture_leaves_no_metrics(tmp_path):
    def fail(path):
        raise RuntimeError('no ink')

    with pytest.raises(RuntimeError):
        write_view('logits', view(pictures={'p.png': fail}),
                   str(tmp_path / 'x'))
    assert not (tmp_path / 'x' / 'metrics.json').exists()


def test_tables_align():
    text = format_rows(view().rows)
    assert text.splitlines() == [
        '| run | value | count |', '|:----|------:|------:|',
        '| a   |   1.5 |     2 |', '| b   |     - |     3 |'
    ]
    assert format_rows([]) == '(no rows)'


@pytest.mark.parametrize('path, name', [
    ('epoch_1.pth', 'epoch_1'),
    ('runs/se/epoch_1.pth', 'se/epoch_1'),
    ('/a/b/train/iter_5.pth', 'b/iter_5'),
])
def test_names_of_checkpoints(path, name):
    assert default_name(path) == name


def luminance(colour):
    parts = [int(colour[i:i + 2], 16) for i in (1, 3, 5)]
    return 0.299 * parts[0] + 0.587 * parts[1] + 0.114 * parts[2]


def test_lines_differ_without_colour():
    looks = [(s['linestyle'], s['marker']) for s in LINE_STYLES]
    assert len(set(looks)) == len(looks)
    assert line_style(1)['linestyle'] != line_style(0)['linestyle']
    # The first three, the usual number, differ in grey alone.
    greys = sorted(luminance(s['color']) for s in LINE_STYLES[:2])
    assert greys[1] - greys[0] > 60


def test_a_drawing_is_whole_or_not_there(tmp_path):
    path = tmp_path / 'a.png'
    with pytest.raises(KeyError):
        with drawing(str(path)):
            raise KeyError
    assert list(tmp_path.iterdir()) == []
    with drawing(str(path), 1, 2, width=2, height=1) as (_, axes):
        axes[0][1].plot([0, 1], [0, 1])
    assert Image.open(path).size == (440, 110)
