"""Every tool on tiny models, as its command line starts it."""
import csv
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image
from support.tiny_jobs import (CLASSES, write_classification_config,
                       write_classification_data, write_detection_config,
                       write_detection_data)

from apa_mm.analysis import AnalysisError, attention
from apa_mm.analysis.command import TOOLS, build_parser, run
from apa_mm.analysis.loading import (Settings, Source, load_subjects,
                                     run_images)
from apa_mm.utils.imports import HAS_MMDET, HAS_MMPRETRAIN

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    not (HAS_MMDET and HAS_MMPRETRAIN), reason='mmdet or mmpretrain missing')
SE = """
model['backbone'].update(
    act_cfg=dict(type='ReLU'),
    attention_cfg=dict(
        type='apa_mm.ChannelAttention', gate_cfg=dict(type='Sigmoid'),
        norm_cfg=None, dropout=0.))
"""
PLAIN = """
model['backbone'].update(act_cfg=dict(type='ReLU'), attention_cfg=None)
"""
CBAM = """
model['backbone'].update(attention_cfg=dict(type='apa_mm.CBAM'))
"""
WITH_IMAGES = ('attention', 'logits', 'collapse', 'calibration', 'gradcam')
PICTURES = dict.fromkeys(TOOLS, ())
PICTURES.update(
    {tool: (f'{tool}.png', ) for tool in TOOLS if tool != 'functions'},
    attention=('attention.png', 'signals.png'),
    functions=('functions.png', 'derivatives.png', 'learned.png'))


def save(config, path, spoil=None):
    """Write a checkpoint of freshly drawn weights."""
    cfg = Config.fromfile(str(config))
    init_default_scope(cfg.default_scope)
    torch.manual_seed(1)
    model = MODELS.build(cfg.model)
    # Untrained heads of mmdet are all but blind.
    for name, parameter in model.named_parameters():
        if 'fc_cls' in name:
            torch.nn.init.normal_(parameter, std=0.5)
        if spoil and spoil in name:
            parameter.data.fill_(float('nan'))
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return str(path)


class Job:
    """Configs of one kind with checkpoints."""

    def __init__(self, kind, root):
        self.kind, self.root = kind, root
        if kind == 'det':
            data = write_detection_data(root / 'data')
            write = write_detection_config
        else:
            data = write_classification_data(root / 'data')
            # Its classes share their images.
            rng = np.random.default_rng(0)
            for path in sorted(data.rglob('*.png')):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
            write = write_classification_config
        self.config = str(write(root / 'apa.py', data))
        self.checkpoint = save(self.config, root / 'apa.pth')
        self.se = self.variant('se', SE)

    def variant(self, name, text, spoil=None):
        path = self.root / f'{name}.py'
        path.write_text(Path(self.config).read_text() + text)
        return str(path), save(path, self.root / f'{name}.pth', spoil)


@pytest.fixture(scope='module', params=['det', 'cls'])
def job(request, tmp_path_factory):
    return Job(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope='module')
def cls(tmp_path_factory):
    return Job('cls', tmp_path_factory.mktemp('cls'))


def analyze(*words):
    return run(build_parser().parse_args([str(word) for word in words]))


def number_of_hooks(model):
    return sum(len(m._forward_hooks) for m in model.modules())


@pytest.mark.parametrize('tool', WITH_IMAGES)
def test_a_tool_compares_two_models(job, tool, tmp_path, capsys):
    record, rows = compare(job, tool, tmp_path)
    assert list(record['metrics']) == ['APA*', 'SE']
    assert {row['run'] for row in rows} == {'APA*', 'SE'}
    progress = capsys.readouterr().err
    assert f'{tool} APA*: ' in progress and ' images\n' in progress


@pytest.mark.parametrize('tool', sorted(set(TOOLS) - set(WITH_IMAGES)))
def test_a_tool_without_images(cls, tool, tmp_path):
    record, _ = compare(cls, tool, tmp_path)
    assert 'SE has no kappa and lambda' in record['notes']


def compare(job, tool, tmp_path):
    out = tmp_path / 'out'
    options = dict(gradcam=['--num-images', 2],
                   logits=['--samples', 'all']).get(tool, [])
    lines = analyze(tool, job.config, job.checkpoint, '--also', *job.se,
                    '--names', 'APA*', 'SE', '--out', out, *options)
    record = json.loads((out / 'metrics.json').read_text())
    assert record['tool'] == tool and record['summary']
    assert set(PICTURES[tool]) == set(record['pictures'])
    for name in PICTURES[tool]:
        picture = Image.open(out / name).convert('L')
        assert min(picture.size) > 100
        assert (out / name).stat().st_size < 200 * 1024
        low, high = picture.getextrema()
        assert low < 60 and high > 240
    with open(out / f'{tool}.csv') as file:
        rows = list(csv.DictReader(file))
    assert rows and lines[0] == record['title']
    assert lines[-1] == f'written: {out}'
    return record, rows


def test_values_of_an_untrained_model_make_sense(job, tmp_path, monkeypatch):
    drawn, draw = [], attention._draw_signals
    monkeypatch.setattr(attention, '_draw_signals', lambda signals, path: (
        drawn.extend(map(list, signals.values())), draw(signals, path)))
    analyze('attention', job.config, job.checkpoint, '--out', tmp_path / 'a')
    record = json.loads((tmp_path / 'a' / 'metrics.json').read_text())
    gates, = record['metrics'].values()
    assert len(gates) == 8
    images = 4 if job.kind == 'det' else 6
    for groups in gates.values():
        assert groups['all']['images'] == images
        assert 0.5 < groups['all']['entropy'] <= 1
        assert 0 <= groups['all']['variance'] < 0.25
    signals = [len(g['all']['signal']) for g in gates.values()
               if 'signal' in g['all']]
    assert signals == [64, 512]
    assert drawn == [[list(gates)[0], list(gates)[-1]]]
    for groups in gates.values():
        members = [g['images'] for n, g in groups.items() if n != 'all']
        assert sum(members) == images  # one class on each image
    if job.kind == 'det':
        # 4 images of classes r, c, f, r.
        assert {n: g['images'] for n, g in groups.items()} == dict(
            all=4, frequent=1, common=1, rare=2)
    else:
        assert any('no class of the split is many' in note
                   for note in record['notes'])


def test_the_lines_of_calibration_are_its_bins(cls, tmp_path):
    analyze('calibration', cls.config, cls.checkpoint, '--num-bins', 4,
            '--out', tmp_path / 'a')
    record = json.loads((tmp_path / 'a' / 'metrics.json').read_text())
    total = record['summary'][0]
    with open(tmp_path / 'a' / 'calibration.csv') as file:
        rows = [r for r in csv.DictReader(file) if r['group'] == 'all']
    low, high, count, accuracy, confidence = (
        [float(r[name]) for r in rows]
        for name in ('low', 'high', 'count', 'accuracy', 'confidence'))
    assert low == [0, 0.25, 0.5, 0.75] and high == [0.25, 0.5, 0.75, 1]
    assert sum(count) == total['predictions'] == 6
    for name, column in (('accuracy', accuracy), ('confidence', confidence)):
        mean = sum(n * x for n, x in zip(count, column, strict=True)) / 6
        assert mean == pytest.approx(total[name])


def test_rois_of_a_detector_have_the_labels_of_objects(tmp_path):
    job = Job('det', tmp_path)
    analyze('logits', job.config, job.checkpoint, '--out', tmp_path / 'all')
    analyze('logits', job.config, job.checkpoint, '--samples', 'own',
            '--out', tmp_path / 'own')
    counts = {}
    for name in ('all', 'own'):
        record = json.loads((tmp_path / name / 'metrics.json').read_text())
        classes = next(iter(record['metrics'].values()))['classes']
        assert list(classes) == list(CLASSES)
        counts[name] = [c['count'] for c in classes.values()]
    # 4 images of at most 20 proposals, some of them on the object.
    assert len(set(counts['all'])) == 1 and 4 <= counts['all'][0] <= 80
    assert 0 < sum(counts['own']) < counts['all'][0]


def test_every_batch_knows_its_own_images(cls):
    settings = Settings(cfg_options={'test_dataloader.batch_size': 1})
    subject, = load_subjects(
        [Source('APA*', cls.config, cls.checkpoint)], settings, [])
    shown = [info['img_path'] for batch in run_images(subject, 'test')
             for info in batch.infos]
    own = [subject.dataset.get_data_info(i) for i in subject.indices]
    assert shown == [info['img_path'] for info in own]
    assert len(set(shown)) > 1


def test_the_model_is_as_before(job):
    subject, = load_subjects([Source('a', job.config, job.checkpoint)],
                             Settings(device='cpu'), [])
    before = {k: v.clone() for k, v in subject.model.state_dict().items()}
    from apa_mm.analysis.explanation import (choose_images, choose_layer,
                                             explain)
    index, group = next(iter(choose_images(subject, 1).items()))
    explain(subject, index, group, choose_layer(subject))
    assert number_of_hooks(subject.model) == 0
    for name, value in subject.model.state_dict().items():
        assert torch.equal(before[name], value), name


def test_a_report_of_all_tools(cls, tmp_path):
    for tool in ('attention', 'calibration'):
        analyze(tool, cls.config, cls.checkpoint, '--max-images', 2,
                '--out', tmp_path / 'runs' / tool)
    line, = analyze('report', tmp_path / 'runs', '--out', tmp_path / 'html')
    text = (tmp_path / 'html' / 'index.html').read_text()
    assert text.count('data:image/png') == 3
    assert line.startswith(f'written: {tmp_path}/html/index.html (')


def test_spatial_gates_have_lines_of_their_own(cls, tmp_path):
    analyze('attention', *cls.variant('cbam', CBAM), '--out', tmp_path / 'a')
    with open(tmp_path / 'a' / 'attention.csv') as file:
        kinds = [row['kind'] for row in csv.DictReader(file)
                 if row['group'] == 'all']
    # On 32 pixels the last stage has a single place.
    assert kinds[:6] == ['channel', 'spatial'] * 3


def test_an_existing_folder_gets_a_new_one_beside_it(cls, tmp_path):
    for _ in '12':
        lines = analyze('parameters', cls.config, cls.checkpoint, '--out',
                        tmp_path / 'a')
    assert lines[-1].endswith('/a-2')


@pytest.mark.parametrize('tool, message', [
    ('attention', 'ImageClassifier has no attention gate, .* model logits'),
    ('parameters', 'has kappa and lambda, .* of others attention, logits'),
])
def test_models_without_what_a_tool_looks_at(cls, tool, message, tmp_path):
    config, checkpoint = cls.variant('plain', PLAIN)
    with pytest.raises(AnalysisError, match=message):
        analyze(tool, config, checkpoint, '--out', tmp_path / 'a')
    assert not (tmp_path / 'a').exists()


@pytest.mark.parametrize('tool, message', [
    ('logits', r'of .* logits of .*nan.pth are NaN .*inspect'),
    ('calibration', 'confidences of .*nan.pth are NaN.*inspect'),
    ('gradcam', 'logits of .*nan.pth are NaN.*inspect'),
])
def test_nan_logits(cls, tool, message, tmp_path):
    config, checkpoint = cls.variant('nan', '', spoil='head.fc')
    with pytest.raises(AnalysisError, match=message):
        analyze(tool, config, checkpoint, '--out', tmp_path / 'a')
    assert not (tmp_path / 'a').exists()


def test_nan_features(cls, tmp_path):
    config, checkpoint = cls.variant('nan', '', spoil='layer4.1.conv2')
    with pytest.raises(AnalysisError, match='features are NaN'):
        analyze('collapse', config, checkpoint, '--out', tmp_path / 'a')


def test_one_class_only(cls, tmp_path):
    with pytest.raises(AnalysisError, match='at least 2, but got 1'):
        analyze('collapse', cls.config, cls.checkpoint, '--max-images', 1,
                '--out', tmp_path / 'a')


def test_classes_with_fewer_than_two_samples_are_reported(cls, tmp_path):
    # Evenly spaced, images 0, 2 and 5 of 2 per class.
    words = [cls.config, cls.checkpoint, '--max-images', 4]
    analyze('collapse', *words, '--out', tmp_path / 'a')
    record = json.loads((tmp_path / 'a' / 'metrics.json').read_text())
    row, = record['summary']
    assert row['classes_with_one_sample'] == 2
    assert any('2 of 3 classes have one sample' in n for n in record['notes'])
    analyze('logits', *words, '--samples', 'own', '--out', tmp_path / 'b')
    record = json.loads((tmp_path / 'b' / 'metrics.json').read_text())
    assert any('2 of 3 classes have fewer than 2 different logits' in note
               for note in record['notes'])
    found, = record['metrics'].values()
    without = [c for c in found['classes'].values() if not c['nearer']]
    assert len(without) == 2
    assert all(c[name] is None for c in without for name in (
        'mean', 'std', 'skewness', 'ks_logistic', 'ks_gumbel'))


@pytest.mark.parametrize('words, message', [
    (['attention', '{config}'], 'needs a checkpoint, but got only the config'),
    (['attention', '{config}', 'gone.pth'], 'gone.pth does not exist'),
    (['attention', '{config}', '{checkpoint}', '--also', '{config}'],
     'names no checkpoint'),
    (['attention', '{config}', '{checkpoint}', '--names', 'a', 'b'],
     '2 names for 1 checkpoints'),
    (['attention', '{config}', '{checkpoint}', '--max-images', '0'],
     '--max-images must be 1 or more, but got 0'),
    (['logits', '{config}', '{checkpoint}', '--classifier', 'neck'],
     '--classifier neck is no linear layer with 3'),
    (['gradcam', '{config}', '{checkpoint}', '--layer', 'nowhere'],
     '--layer nowhere is no module'),
    (['attention', '{se}', '{checkpoint}'], 'is not of the model in .*se.py'),
])
def test_wrong_words(cls, words, message, tmp_path):
    filled = [word.format(config=cls.config, checkpoint=cls.checkpoint,
                          se=cls.variant('plain', PLAIN)[0].replace(
                              'plain', 'se')) for word in words]
    if '{se}' in words:
        config, _ = cls.variant('se', SE.replace(
            "norm_cfg=None", "norm_cfg=dict(type='LN'), reduction=8"))
        filled[1] = config
    with pytest.raises(AnalysisError, match=message):
        analyze(*filled, '--out', tmp_path / 'a')
    assert not (tmp_path / 'a').exists()


def test_training_images_go_through_the_test_pipeline(job, tmp_path):
    analyze('attention', job.config, job.checkpoint, '--split', 'train',
            '--out', tmp_path / 'a')
    record = json.loads((tmp_path / 'a' / 'metrics.json').read_text())
    assert record['summary'][0]['images'] == (4 if job.kind == 'det' else 6)
    assert record['settings']['split'] == 'train'


def test_a_missing_package_is_named(cls, tmp_path, monkeypatch):
    monkeypatch.setattr('apa_mm.analysis.command.find_spec',
                        lambda name: None if name == 'scipy' else name)
    with pytest.raises(AnalysisError, match='logits needs the package scipy, '
                       '.*pip install -r requirements/analysis.txt'):
        analyze('logits', cls.config, cls.checkpoint, '--out', tmp_path / 'a')


def tool_main():
    spec = importlib.util.spec_from_file_location(
        'analyze_tool', ROOT / 'tools' / 'analyze.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_the_script_ends_with_2_and_one_line(cls, tmp_path, monkeypatch,
                                             capsys):
    main = tool_main()
    monkeypatch.setattr(sys, 'argv', ['analyze.py', 'report',
                                      str(tmp_path / 'gone')])
    assert main() == 2
    said = capsys.readouterr()
    assert said.err.startswith('error: ') and said.err.count('\n') == 1
    (tmp_path / 'broken.pth').write_bytes(b'nothing')
    monkeypatch.setattr(sys, 'argv', [
        'analyze.py', 'parameters', cls.config, str(tmp_path / 'broken.pth')])
    assert main() == 2
    monkeypatch.setattr(sys, 'argv', [
        'analyze.py', 'functions', '--out', str(tmp_path / 'f')])
    assert main() == 0
    assert 'written: ' in capsys.readouterr().out
