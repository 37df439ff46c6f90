"""What the READMEs say holds: types, links, paths, snippets."""
import functools
import inspect
import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS, init_default_scope
from support.configs import ROOT

from apa_mm import registry

READMES = sorted(
    p.relative_to(ROOT).as_posix()
    for folder in ('.', 'configs', 'tools')
    for p in (ROOT / folder).glob('README.md' if folder == '.' else
                                  '**/README.md'))


@functools.lru_cache(maxsize=None)
def text_of(name):
    return (ROOT / name).read_text()


def snippets(language):
    return [(name, code) for name in READMES for code in re.findall(
        rf'```{language}\n(.*?)```', text_of(name), re.S)]


def table(heading, column):
    """Return the cells of a column of the first table after a line."""
    rest = text_of('README.md').split(heading, 1)[1]
    rows = re.search(r'(\|.*\n)+', rest)[0].splitlines()[2:]
    return [row.strip('| ').split(' | ')[column] for row in rows]


def test_the_readme_is_short_and_speaks_one_language():
    assert len(text_of('README.md').splitlines()) <= 250
    for name in READMES:
        assert 'joined' not in text_of(name), name


def test_the_table_of_types_is_the_registries():
    shown = [name for cell in table('## Types', 0)
             for name in re.findall(r'`(\w+)`', cell)]
    registries = [getattr(registry, name) for name in registry.__all__]
    for each in registries:
        each.import_from_location()
    types = {name for each in registries for name in each.module_dict}
    assert len(shown) == len(set(shown))
    assert set(shown) == types
    assert all(table('## Types', 1))


@pytest.mark.parametrize('name', READMES)
def test_links_and_paths_exist(name):
    text = text_of(name)
    for target in re.findall(r'\]\(([^)#]+)\)', text):
        if not target.startswith('http'):
            assert (ROOT / name).parent.joinpath(target).exists(), target
    code = '\n'.join(
        re.findall(r'```bash\n(.*?)```', text, re.S)
        + re.findall(r'`([^`\n]+)`', text))
    for path in re.findall(r'(?:^|[\s(])((?:configs|tools)/[^\s`,()]+)', code):
        path = path.rstrip('.')
        if '...' in path or '{' in path:
            path = path.split('...')[0].split('{')[0] + '*'
        assert list(ROOT.glob(path)), path


@pytest.mark.parametrize(
    'name, code', snippets('python'), ids=lambda s: s[:20].strip())
def test_python_snippets_run(name, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if re.match(r'\w+ = ', code):  # a config, or part of one
        cfg = Config.fromstring(code, '.py')
        init_default_scope(cfg.get('default_scope', 'mmdet'))
        if 'model' in cfg:
            assert MODELS.build(cfg.model) is not None
        for hook in cfg.get('custom_hooks', []):
            assert HOOKS.build(hook) is not None
    else:
        exec(code, {})


def typed(value):
    """Yield every dict with a type in a nest of dicts and lists."""
    if isinstance(value, list):
        for item in value:
            yield from typed(item)
    elif isinstance(value, dict):
        if 'type' in value:
            yield value
        for item in value.values():
            yield from typed(item)


@pytest.mark.parametrize('cell', table('## Use in a config', 1))
def test_lines_to_write_in_a_config_are_taken(cell):
    lines = re.findall(r'`(\w+=[^`]+)`', cell)
    assert lines
    for line in lines:
        settings = eval(f'dict({line})')
        for item in typed(settings):
            if item['type'].startswith('apa_mm.'):
                cls = MODELS.get(item['type']) or HOOKS.get(item['type'])
                names = {name for base in cls.__mro__ for name in
                         inspect.signature(base.__init__).parameters}
                assert set(item) - {'type'} <= names, item
        if set(settings) <= {'act_cfg', 'attention_cfg'}:
            assert MODELS.build(
                dict(type='apa_mm.APAResNet', depth=18, **settings))


def test_every_config_folder_has_a_readme_that_names_its_data():
    for folder in sorted((ROOT / 'configs').glob('[cd]*/*/metafile.yml')):
        text = Path(folder).with_name('README.md').read_text()
        assert 'data' in text.lower(), folder


def test_the_tools_readme_names_every_tool():
    text = text_of('tools/README.md').split('## ')[0]
    for path in (ROOT / 'tools').glob('*.*'):
        if path.suffix in ('.py', '.sh'):
            assert f'{path.name}`' in text, path.name


def which_loss():
    """Return the section and the cells of its table, a list per row."""
    section = text_of('configs/det/README.md').split(
        '## Which loss when\n')[1].split('\n## ')[0]
    rows = [row.strip('| ').split(' | ')
            for row in re.search(r'(\|.*\n)+', section)[0].splitlines()[2:]]
    return section, rows


def test_losses_and_options_of_which_loss_when_exist():
    section, rows = which_loss()
    named = re.findall(r'`([^`\n]+)`', section)
    kinds = {name: registry.MODELS.get(name) or MODELS.get(f'mmdet.{name}')
             for text in named
             for name in re.findall(r'\w+(?:Loss|Head)\b', text)}
    assert {'GOLLoss', 'SampledSigmoidLoss', 'LargeVocabBBoxHead',
            'SeesawLoss'} == set(kinds) and all(kinds.values())
    takes = {kind: inspect.signature(kind.__init__).parameters
             for kind in kinds.values()}
    options = [name for text in named
               for name in re.findall(r'\b([a-z]\w*)(?:=|$)', text)]
    assert len(options) == 3
    for name in options:
        assert any(name in taken for taken in takes.values()), name
    gol, sampled = (takes[kinds[name]] for name in (
        'GOLLoss', 'SampledSigmoidLoss'))
    uses = ' '.join(row[2] for row in rows)
    assert f'default {gol["rare_threshold"].default}' in uses
    assert f'{sampled["num_sampled"].default} classes a step' in uses


def test_every_line_of_which_loss_when_cites_a_measured_figure():
    _, rows = which_loss()
    assert len(rows) == 8 and {len(row) for row in rows} == {4}
    ours, lvis = text_of('tools/README.md'), text_of(
        'configs/det/lvis/README.md')
    for *_, backed in rows:
        theirs = re.findall(r"(?:Table \d|'s model zoo|'s paper).*AP \d\d\.\d",
                            backed)
        figures = re.findall(r'\d\.\d{3}', backed)
        assert theirs or figures, backed
        if 'three seeds' in backed:
            assert len(figures) == 6
            for figure in figures:
                assert f'| {figure} ± ' in ours, figure
        if 'Table 5' in backed:
            assert re.search(r'apa-seresnet50_fpn_gol_sample1e-3-ms-2x_lvis-v1'
                             r'` \| 29\.1 \| 21\.6 \|.* Table 5 ', lvis)
            assert 'mask AP 29.1, APr 21.6' in backed


def test_the_warning_of_dropped_negatives_cites_that_page():
    code = text_of('apa_mm/preflight/data_checks.py')
    high, low = re.search(r"'(0\.\d+) to (0\.\d+); set rare_th", code).groups()
    row, = (row for row in which_loss()[1] if 'not GOL as it is' in row[2])
    assert f'APr {low} with 0.1;' in row[3] and f', {high} with 0' in row[3]
