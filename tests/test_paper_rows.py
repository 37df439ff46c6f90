"""Every row of the paper that is named here has its config and its figure."""
from pathlib import Path

import pytest
import yaml
from support.configs import CONFIGS, ROOT, build_on_meta, load, settings

LISTED = yaml.safe_load((ROOT / 'tests/paper_rows.yml').read_text())
ROWS = [row for row in LISTED if 'config' in row]
COMPARED = [row for row in ROWS if 'baseline' in row]


def path(stem):
    return f'configs/{stem}.py'


def figures(row):
    figure = row['figure']
    return list(figure.values()) if isinstance(figure, dict) else [figure]


def name(row):
    return f'{row["table"]}-{row["row"]}'.replace(' ', '')


def test_the_rows_are_in_order():
    assert len(ROWS) >= 90
    assert len({(row['table'], row['row']) for row in LISTED}) == len(LISTED)
    configs = {row['config'] for row in ROWS}
    assert configs <= {c[len('configs/'):-len('.py')] for c in CONFIGS}
    # A baseline is a row as well, or the SE baseline of a detector.
    assert all(row['baseline'] in configs or 'det/' in row['baseline']
               or 'imagenet/' in row['baseline'] for row in COMPARED)


@pytest.mark.parametrize('row', COMPARED, ids=name)
def test_row_differs_from_its_baseline_in_the_named_parts(row):
    ours, theirs = (settings(load(path(row[key])))
                    for key in ('config', 'baseline'))
    missing = object()
    changed = {
        key for key in ours.keys() | theirs.keys()
        if ours.get(key, missing) != theirs.get(key, missing)
    }
    named = row['differs']
    assert not [k for k in changed if not any(map(k.startswith, named))]
    assert all(any(k.startswith(part) for k in changed) for part in named)


@pytest.mark.parametrize('row', ROWS, ids=name)
def test_readme_and_metafile_show_the_figure(row):
    folder = (ROOT / path(row['config'])).parent
    stem = Path(row['config']).name
    lines = [line for line in (folder / 'README.md').read_text().splitlines()
             if line.startswith(f'| `{stem}` ')]
    assert len(lines) == 1
    cells = lines[0].replace('/', '|').replace('*', '').split('|')
    cells = {cell.strip() for cell in cells}
    assert {str(value) for value in figures(row)} <= cells
    assert row['table'] in lines[0]
    if 'assumed' in row:
        assert 'assumed' in lines[0]
    if 'failed' in figures(row):
        return
    models = yaml.safe_load((folder / 'metafile.yml').read_text())['Models']
    entry, = (model for model in models if model['Name'] == stem)
    shown = {value for result in entry['Results']
             for value in result['Metrics'].values()}
    assert shown & set(figures(row))


def test_the_readme_shows_the_path_of_table_14():
    """In the table's order; a row without a config says why in the list."""
    rows = [row for row in LISTED if row['table'] == '14']
    text = (ROOT / 'configs/cls/ablations/README.md').read_text()
    path_of_14 = text.split('| row | top-1 | config |\n')[1].split('\n\n')[0]
    shown = [[cell.strip('` ') for cell in line.split('|')[2:4]]
             for line in path_of_14.splitlines()[1:]]
    assert shown == [
        [str(row['figure']), row.get('config', 'none').removeprefix(
            'cls/').removeprefix('ablations/')] for row in rows]
    assert [row for row in LISTED if 'config' not in row] == [
        row for row in rows if 'unknown' in row]


# tests/test_lm builds GPT-2, in a process with its library.
@pytest.mark.parametrize('stem', sorted({
    row['config'] for row in ROWS if not row['config'].startswith('lm/')}))
def test_the_rows_model_builds(stem):
    assert any(p.requires_grad
               for p in build_on_meta(load(path(stem))).parameters())


@pytest.mark.parametrize('folder', sorted(
    p.parent.relative_to(ROOT).as_posix()
    for p in (ROOT / 'configs').rglob('metafile.yml')))
def test_metafile_and_readme_name_every_config(folder):
    models = yaml.safe_load((ROOT / folder / 'metafile.yml').read_text())
    configs = {c for c in CONFIGS if c.startswith(folder + '/')}
    assert {m['Config'] for m in models['Models']} == configs
    assert {m['Name'] for m in models['Models']} == {
        Path(c).stem for c in configs}
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert f'{folder}/metafile.yml' in index['Import']
    text = (ROOT / folder / 'README.md').read_text()
    for config in configs:
        assert f'| `{Path(config).stem}` |' in text, config
