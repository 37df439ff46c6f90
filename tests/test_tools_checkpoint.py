"""The two checkpoint tools, from files to files."""
import argparse
import importlib.util
import io
import json
import os
import pickle
import re
import shlex
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from apa_mm.registry import MODELS
from apa_mm.utils.imports import HAS_MMDET, HAS_MMPRETRAIN
from support import forked
from support import checkpoint_layouts as layouts
from support import checkpoint_networks as networks

ROOT = Path(__file__).parents[1]


DETECTOR = """
default_scope = 'mmdet'
model = dict(
    type='RetinaNet',
    backbone=dict(type='apa_mm.APAResNet', depth=18),
    neck=dict(type='FPN', in_channels=[64, 128, 256, 512], out_channels=8,
              num_outs=5),
    bbox_head=dict(type='RetinaHead', num_classes=3, in_channels=8,
                   stacked_convs=1, feat_channels=8))
"""


def load_tool(name):
    spec = importlib.util.spec_from_file_location(
        name, ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Call a tool's main in a folder of its own; code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def call(tool, *args):
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, args)])
        code = load_tool(tool).main()
        out, err = capsys.readouterr()
        return code, out, err

    return call


def cifar(seed=0):
    return layouts.random({
        **layouts.authors_cifar(blocks=3),
        **layouts.classifier('cosine', 100, 64, 'linear')
    }, seed)


def save_authors(path='src.pth', tensors=None, **extra):
    content = dict(
        model=tensors or cifar(),
        epoch=499,
        args=argparse.Namespace(dset_name='cifar100', classif_norm='cosine'),
        **extra)
    torch.save(content, path)
    return path


# --- from a downloaded file to a running config, in one command ---
@pytest.mark.skipif(not HAS_MMPRETRAIN, reason='needs mmpretrain')
def test_one_command_gives_a_classifier_that_computes_the_same(run):
    source = cifar()
    save_authors(tensors=source)
    code, out, err = run('convert_checkpoint', 'src.pth', 'dst.pth', '--to',
                         'mmpretrain', '--write-config', 'cfg.py')
    assert code == 0 and not err
    assert 'missing: none\nunexpected: none\nreshaped: none' in out
    assert 'wrote dst.pth' in out and "type='apa_mm.APAResNetCIFAR'" in out
    assert sorted(os.listdir()) == ['cfg.py', 'dst.pth', 'src.pth']

    cfg = Config.fromfile('cfg.py')
    assert cfg.load_from == 'dst.pth'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model).double().eval()
    checkpoint = torch.load('dst.pth', weights_only=True)
    model.load_state_dict(checkpoint['state_dict'], strict=True)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    features = networks.Network(source).features(x)[-1]
    wanted = networks.logits(features, source, 'cosine', 'linear')
    with torch.no_grad():
        torch.testing.assert_close(
            model(x, mode='tensor'), wanted, rtol=1e-4, atol=1e-5)


def test_meta_says_where_the_weights_are_from(run):
    import hashlib
    save_authors()
    code, _, _ = run('convert_checkpoint', 'src.pth', 'dst.pth', '--to',
                     'mmpretrain')
    meta = torch.load('dst.pth', weights_only=True)['meta']
    digest = hashlib.sha256(Path('src.pth').read_bytes()).hexdigest()
    assert code == 0
    assert meta['source_sha256'] == digest
    assert meta['source'] == "the authors' CIFAR classification code"
    assert (meta['table'], meta['source_file'], meta['source_entry']) == (
        'authors-cifar', 'src.pth', 'model')
    assert meta['source_epoch'] == 499 and meta['head'] == 'cosine'
    assert meta['class_order'] == 'native'
    assert meta['backbone_cfg'] == dict(
        type='apa_mm.APAResNetCIFAR', depth=20)
    assert meta['report']['missing'] == 0
    assert meta['tool_version']


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_backbones_load_by_pretrained_and_carry_a_digest(run, suffix):
    save_authors()
    code, out, _ = run('convert_checkpoint', 'src.pth', f'dst{suffix}', '--to',
                       'mmdet-backbone', '--hash-suffix')
    assert code == 0
    name, = [n for n in os.listdir() if n.startswith('dst-')]
    assert name.endswith(suffix) and f'wrote {name}' in out
    if suffix == '.safetensors':  # and safetensors in: the way back
        code, _, _ = run('convert_checkpoint', name, 'again.pth', '--to',
                         'mmdet-backbone')
        assert code == 0
        name = 'again.pth'
    scope = {}
    exec(out.split('config:\n')[1], scope)
    cfg = dict(scope['model']['backbone'])
    assert '_delete_' not in cfg
    cfg['init_cfg'] = dict(type='Pretrained', checkpoint=name)
    model = MODELS.build(cfg)
    model.init_weights()
    source = cifar()
    assert torch.equal(model.layer3[2].conv2.weight,
                       source['layer3.2.conv2.weight'])
    assert torch.equal(model.act1.kappa, source['unirect.kappa_param'])


def test_a_raw_authors_file_as_pretrained_names_this_tool(run):
    # mmengine would find no weights in either.
    save_authors()
    torch.save(dict(model=cifar()), 'plain.pth')
    for path in ('src.pth', 'plain.pth'):
        model = MODELS.build(
            dict(
                type='apa_mm.APAResNetCIFAR',
                depth=20,
                init_cfg=dict(type='Pretrained', checkpoint=path)))
        with pytest.raises(ValueError,
                           match=r'tools/convert_checkpoint\.py'):
            model.init_weights()


def test_the_average_and_random_values_are_options(run):
    averaged = {f'module.{k}': v for k, v in cifar(seed=5).items()}
    save_authors(model_ema={'n_averaged': torch.tensor(3), **averaged})
    code, out, _ = run('convert_checkpoint', 'src.pth', 'ema.pth', '--to',
                       'mmdet-backbone', '--ema')
    assert code == 0 and '1 x counter of the moving average' in out
    state = torch.load('ema.pth', weights_only=True)['state_dict']
    assert torch.equal(state['conv1.weight'], averaged['module.conv1.weight'])

    torch.save(layouts.random(layouts.resnet(18)), 'plain.pth')
    values = []
    for extra in ([], ['--relu-kappa', '50'], ['--act', 'silu'],
                  ['--init', 'random', '--seed', '3'], ['--init', 'plain']):
        code, _, _ = run('convert_checkpoint', 'plain.pth', 'out.pth', '--to',
                         'mmdet-backbone', *extra)
        assert code == 0
        state = torch.load('out.pth', weights_only=True)['state_dict']
        kappa = state.get('act1.kappa')
        values.append(None if kappa is None else kappa.item())
    assert values[:3] == [10000.0, 50.0, 1.0] and values[4] is None
    assert 1 < values[3] < 1.3
    for value in ('inf', 'nan', '0'):
        code, _, err = run('convert_checkpoint', 'plain.pth', 'no.pth', '--to',
                           'mmdet-backbone', '--relu-kappa', value)
        assert code == 2 and 'finite number above 0' in err
    assert not os.path.exists('no.pth')


# --- lines for a child config ---
def recipe_state(cfg):
    """Return the frozen parameters and the norms in training mode."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg)
    model.train()
    return ([n for n, p in model.named_parameters() if not p.requires_grad],
            [n for n, m in model.named_modules()
             if isinstance(m, torch.nn.BatchNorm2d) and m.training])


@pytest.mark.skipif(not HAS_MMDET, reason='needs mmdet with mmcv.ops')
@pytest.mark.parametrize('plain', [False, True])
def test_printed_lines_keep_what_the_recipe_freezes(run, plain):
    shapes = layouts.authors_resnet(50) if not plain else layouts.resnet(50)
    torch.save(layouts.random(shapes), 'src.pth')
    code, out, _ = run('convert_checkpoint', 'src.pth', 'dst.pth', '--to',
                       'mmdet-backbone', '--write-config', 'lines.py',
                       *(['--init', 'plain'] if plain else []))
    assert code == 0
    base = "_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'\n"
    Path('child.py').write_text(base + out.split('config:\n')[1])
    assert out.endswith(Path('lines.py').read_text())
    backbone = Config.fromfile('child.py').model.backbone
    assert backbone.init_cfg == dict(type='Pretrained', checkpoint='dst.pth')
    Path('parent.py').write_text(base)
    for key, value in Config.fromfile('parent.py').model.backbone.items():
        assert key in ('type', 'init_cfg') or backbone[key] == value, key
    frozen, training = recipe_state(backbone)
    recipe = Config.fromfile(
        ROOT / 'configs/det/coco/mask-rcnn_apa-seresnet50_fpn_2x_coco.py')
    assert not training and len(frozen) == (33 if plain else 71)
    if not plain:
        assert (frozen, training) == recipe_state(recipe.model.backbone)
    model = MODELS.build(backbone)
    model.init_weights()
    assert torch.equal(model.layer3[1].conv2.weight,
                       torch.load('src.pth')['layer3.1.conv2.weight'])


@pytest.mark.parametrize('heads, words', [
    (1, 'cls_predictor_cfg=dict(\n                form=released)'),
    (3, '--cfg-options ' + ' '.join(
        f'model.roi_head.bbox_head.{i}.cls_predictor_cfg.form=released'
        for i in range(3)) + '\n'),
])
def test_lines_of_v3det_ask_for_the_released_form(heads, words):
    from apa_mm.checkpoint.architecture import Architecture
    from apa_mm.checkpoint.configs import config_text
    text = config_text(
        'mmdet', 'a.pth', Architecture('apa_mm.APAResNet', 50, (3, 4, 6, 3),
                                       True), cauchy_heads=heads)
    assert words in text.replace("'", '') and 'load_from' in text
    exec(text, {})


def test_commands_of_the_readme_make_what_configs_start_from(monkeypatch):
    tool, made = load_tool('convert_checkpoint'), {}
    text = (ROOT / 'configs/README.md').read_text()
    for command in re.findall(r'python tools/(convert\S+ .+?)(?:`|\n)', text):
        monkeypatch.setattr(sys, 'argv', shlex.split(command))
        args = tool.parse_args()
        made[args.dst] = args.to, args.init
    assert made.pop('checkpoints/OUT.pth')
    used = {}
    for path in (ROOT / 'configs').rglob('*.py'):
        for name in re.findall(r'checkpoints/[\w.-]+\.pth', path.read_text()):
            used.setdefault(name, set()).add(
                'mmpretrain' if 'cls' in path.parts or 'places' in path.name
                else 'mmdet-backbone')
    assert len(made) >= 3
    for name, (to, init) in made.items():
        assert used[name] == {to}, name
        assert init == ('plain' if '/seresnet' in name else 'equivalent')


# --- the way back, and publishing ---
NORM = layouts.random({**layouts.authors_cifar(blocks=3),
                       **layouts.classifier('norm', 100, 64, 'linear')})
#: Only what the file says of its source tells it from a classifier's.
BACKBONE = layouts.random(
    layouts.under('backbone', layouts.authors_resnet(18)))


@pytest.mark.parametrize('source, to, suffix, table, lost', [
    (cifar(), 'mmpretrain', '.pth', 'cifar', set()),
    (cifar(), 'mmpretrain', '.safetensors', 'cifar', set()),
    (NORM, 'mmpretrain', '.pth', 'cifar', {'linear.bias'}),
    (BACKBONE, 'mmdet-backbone', '.pth', 'detection', set()),
])
def test_to_authors_gives_their_file_back(run, source, to, suffix, table,
                                          lost):
    save_authors(tensors=source)
    code, _, err = run('convert_checkpoint', 'src.pth', f'ours{suffix}',
                       '--to', to)
    assert code == 0, err
    code, out, err = run('convert_checkpoint', f'ours{suffix}', 'back.pth',
                         '--to', 'authors')
    assert code == 0 and f'apa_mm -> authors-{table}' in out, err
    back = torch.load('back.pth', weights_only=True)['model']
    assert back.keys() == source.keys() - lost
    assert all(torch.equal(back[name], source[name]) for name in back)


def test_to_authors_takes_ours_alone(run):
    torch.save(layouts.random(layouts.resnet(18)), 'plain.pth')
    code, _, err = run('convert_checkpoint', 'plain.pth', 'no.pth', '--to',
                       'authors')
    assert code == 2 and 'it is of torchvision; only networks' in err


PUBLISHED = """
import sys, torch
content = torch.load(sys.argv[1], weights_only=True)
assert 'apa_mm' not in sys.modules and sorted(content) == [
    'meta', 'state_dict'], sorted(content)
assert content['meta']['dataset_meta'] == dict(
    classes=('a', 'b', 'c'), palette=[[0, 0, 0]] * 3)
from mmdet.apis import DetInferencer, init_detector
for config in ('det.py', None):  # None: the one in the file
    inferencer = DetInferencer(config, sys.argv[1], device='cpu')
    for name, value in content['state_dict'].items():
        assert torch.equal(inferencer.model.state_dict()[name], value), name
model = init_detector('det.py', sys.argv[1], device='cpu')
assert model.dataset_meta['classes'] == ('a', 'b', 'c')
"""


@pytest.mark.skipif(not HAS_MMDET, reason='needs mmdet with mmcv.ops')
def test_a_published_detector_needs_no_package_to_unpickle(run):
    import numpy as np
    from mmengine.logging import HistoryBuffer
    Path('det.py').write_text(DETECTOR + """
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackDetInputs')]
test_dataloader = dict(dataset=dict(type='CocoDataset', pipeline=pipeline))
visualizer = dict(type='DetLocalVisualizer', name='v')
""")
    cfg = Config.fromfile('det.py')
    with DefaultScope.overwrite_default_scope('mmdet'):
        state = MODELS.build(cfg.model).state_dict()
    torch.save(dict(
        state_dict=state, optimizer=dict(state={}), meta=dict(
            cfg=cfg.pretty_text, epoch=2, dataset_meta=dict(
                classes=('a', 'b', 'c'), palette=np.zeros((3, 3), int))),
        message_hub=dict(loss=HistoryBuffer([1.0], [1]))), 'epoch_2.pth')
    code, out, err = run('convert_checkpoint', 'epoch_2.pth', 'shared.pth',
                         '--to', 'mmdet', '--hash-suffix')
    assert code == 0, err
    name = re.search(r'wrote (shared-[0-9a-f]{8}\.pth)', out)[1]
    result = forked.run(['-c', PUBLISHED, name])
    assert result.returncode == 0, result.stderr[-2000:]


# --- against a config ---
@pytest.mark.skipif(not HAS_MMDET, reason='needs mmdet with mmcv.ops')
def test_a_config_is_held_against_every_tensor(run):
    Path('det.py').write_text(DETECTOR)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(Config.fromfile('det.py').model)
    state = model.state_dict()
    torch.save(dict(meta={}, state_dict=state), 'src.pth')
    code, out, _ = run('convert_checkpoint', 'src.pth', 'dst.pth', '--to',
                       'mmdet', '--config', 'det.py')
    assert code == 0 and 'missing: none' in out

    lacking = dict(state)
    del lacking['bbox_head.retina_cls.bias']
    lacking['bbox_head.extra'] = torch.ones(1)
    torch.save(dict(meta={}, state_dict=lacking), 'src.pth')
    code, out, err = run('convert_checkpoint', 'src.pth', 'no.pth', '--to',
                         'mmdet', '--config', 'det.py')
    assert code == 2 and not os.path.exists('no.pth')
    assert 'missing (1):\n  bbox_head.retina_cls.bias' in out
    assert 'unexpected (1):\n  bbox_head.extra' in out
    assert '1 tensors are missing, 1 unexpected' in err
    code, out, _ = run('convert_checkpoint', 'src.pth', 'yes.pth', '--to',
                       'mmdet', '--config', 'det.py', '--allow-missing')
    assert code == 0 and 'missing (1)' in out
    written = torch.load('yes.pth', weights_only=True)['state_dict']
    assert 'bbox_head.extra' not in written
    assert len(written) == len(state) - 1

    lacking['bbox_head.retina_cls.bias'] = torch.ones(5)
    torch.save(dict(meta={}, state_dict=lacking), 'src.pth')
    code, out, err = run('convert_checkpoint', 'src.pth', 'no.pth', '--to',
                         'mmdet', '--config', 'det.py', '--allow-missing')
    assert code == 2 and 'shapes must fit' in err
    assert '(5,), expected (27,)' in out


def test_configs_that_cannot_be_used(run):
    save_authors()
    Path('empty.py').write_text('a = 1\n')
    Path('bad.py').write_text("model = dict(type='apa_mm.APAResNet', "
                              'depth=7)\n')
    for name, words in (('absent.py', 'is not there'),
                        ('empty.py', 'has no model'),
                        ('bad.py', 'depth must be one of')):
        code, _, err = run('convert_checkpoint', 'src.pth', 'dst.pth', '--to',
                           'mmdet-backbone', '--config', name)
        assert code == 2 and words in err
    assert not os.path.exists('dst.pth')


def test_other_networks_need_a_config(run):
    torch.save({'model.0.act.kappa': torch.ones(1),
                'model.0.act.lambd': torch.ones(1)}, 'src.pth')
    code, _, err = run('convert_checkpoint', 'src.pth', 'dst.pth', '--to',
                       'mmdet')
    assert code == 2 and 'no ResNet' in err and '--config' in err


# --- refused: one sentence, exit code 2, no output file, no code run ---
class Runs:

    def __reduce__(self):
        return os.system, ('touch it-ran', )


def archive_of(compression):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w', compression) as archive:
        archive.writestr('archive/data.pkl', bytes(10**7))
    return stream.getvalue()


def pickled(content, **kwargs):
    stream = io.BytesIO()
    torch.save(content, stream, **kwargs)
    return stream.getvalue()


def changed(**tensors):
    return pickled(dict(model={**cifar(), **tensors}))


LEGACY = dict(_use_new_zipfile_serialization=False)
REFUSED = {
    'code': lambda: pickled(Runs()),
    'code in args': lambda: pickled(
        dict(model=cifar(), args=argparse.Namespace(x=Runs()))),
    'code in message_hub': lambda: pickled(
        dict(state_dict=cifar(), message_hub=[Runs()])),
    'code in the legacy form': lambda: pickled(
        dict(model=cifar(), args=Runs()), **LEGACY),
    'code in a bare pickle': lambda: pickle.dumps(Runs(), 2),
    'truncated': lambda: pickled(dict(model=cifar()))[:50000],
    'truncated legacy': lambda: pickled(dict(model=cifar()), **LEGACY)[:50000],
    'zip bomb': lambda: archive_of(zipfile.ZIP_DEFLATED),
    'header of terabytes': lambda: (10**13).to_bytes(8, 'little') + b'{}',
    'wrong shape': lambda: changed(**{'bn1.weight': torch.ones(17)}),
    'wrong shape of the stem': lambda: changed(
        **{'conv1.weight': torch.ones(16)}),
    'NaN': lambda: changed(**{'bn1.weight': torch.full((16, ), torch.nan)}),
    'infinity': lambda: changed(
        **{'unirect.kappa_param': torch.tensor([torch.inf])}),
    'duplicate prefix': lambda: changed(
        **{'module.bn1.weight': torch.ones(16)}),
    'missing': lambda: pickled(dict(model={
        k: v for k, v in cifar().items() if k != 'bn1.bias'})),
    'unexpected': lambda: changed(**{'layer1.0.extra': torch.ones(1)}),
    'empty dict': lambda: pickled({}),
    'empty state dict': lambda: pickled(dict(model={})),
    'no state dict': lambda: pickled(dict(epoch=3)),
    'text': lambda: b'<html>404: not found</html>\n',
    'Git-LFS': lambda: b'version https://git-lfs.github.com/spec/v1\n',
    'nothing': lambda: b'',
}


@pytest.mark.parametrize('kind', REFUSED)
def test_bad_files_leave_nothing_behind(run, kind):
    Path('src.pth').write_bytes(REFUSED[kind]())
    code, out, err = run('convert_checkpoint', 'src.pth', 'dst.pth', '--to',
                         'mmpretrain')
    assert code == 2
    assert err.startswith('error: src.pth cannot be') and err.count('\n') == 1
    assert os.listdir() == ['src.pth']
    assert 'Traceback' not in out + err


@pytest.mark.parametrize('kind', [
    k for k in REFUSED if k not in (
        'wrong shape', 'wrong shape of the stem', 'NaN', 'infinity',
        'missing', 'unexpected')
])
def test_the_inspector_refuses_what_it_cannot_read(run, kind):
    Path('src.pth').write_bytes(REFUSED[kind]())
    code, out, err = run('inspect_checkpoint', 'src.pth', '--plot', 'p.png')
    assert code == 2 and not out
    assert err.startswith('error: src.pth cannot be') and err.count('\n') == 1
    assert os.listdir() == ['src.pth']


@pytest.mark.parametrize('dtype', [torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_of_eight_bits(run, dtype):
    save_authors(tensors={k: v.to(dtype) for k, v in cifar().items()})
    code, _, err = run('convert_checkpoint', 'src.pth', 'dst.pth', '--to',
                       'mmpretrain')
    assert (code, err) == (0, '')
    written = torch.load('dst.pth')['state_dict']['backbone.conv1.weight']
    assert written.dtype == dtype
    for name in ('src.pth', 'dst.pth'):
        assert run('inspect_checkpoint', name)[0] == 0


def test_places_to_write_to_are_checked_first(run):
    save_authors()
    for args, words in (
        (['src.pth'], 'is the source itself'),
        (['src.pth/dst.pth'], 'folder src.pth of dst.pth cannot be made'),
        (['dst.pth', '--write-config', 'src.pth/c.py'],
         'folder src.pth of c.py cannot be made'),
        (['dst.pth', '--write-config', './src.pth'], 'is the source itself'),
        (['dst.pth', '--write-config', 'dst.pth'], 'is named twice'),
        (['dst.pth', '--write-config', '.'], 'it is a folder'),
        (['dst.pth', '--write-config', '/proc/c.py'], '/proc/c.py cannot be'),
        (['dst.pth', '--write-config', 'c' * 300], 'cannot be written: File')):
        code, _, err = run('convert_checkpoint', 'src.pth', *args, '--to',
                           'mmpretrain')
        assert code == 2 and words in err
    assert os.listdir() == ['src.pth']
    code, _, err = run('convert_checkpoint', 'src.pth', 'a', '--to',
                       'mmpretrain', '--write-config', 'a/c.py')
    assert code == 2 and 'it is a folder' in err
    code, _, err = run('convert_checkpoint', 'absent.pth', 'dst.pth', '--to',
                       'mmpretrain')
    assert code == 2 and 'absent.pth does not exist' in err


def test_the_exit_code_is_that_of_the_process(tmp_path):
    (tmp_path / 'src.pth').write_bytes(REFUSED['code in args']())
    result = forked.run([ROOT / 'tools' / 'convert_checkpoint.py', 'src.pth',
                         'dst.pth', '--to', 'mmpretrain'], cwd=tmp_path)
    assert result.returncode == 2 and not result.stdout
    assert 'posix.system' in result.stderr
    assert os.listdir(tmp_path) == ['src.pth']


# --- inspection ---
def test_the_inspector_prints_what_a_file_is_and_draws_several(run):
    save_authors('one.pth')
    save_authors('two.pth', cifar(seed=1))
    code, out, err = run('inspect_checkpoint', 'one.pth', 'two.pth', '--plot',
                         'p.png')
    assert code == 0 and not err
    assert out.count('28 pairs (19 units, 9 gates)') == 2
    assert 'cosine classifier, 100 classes' in out
    assert 'backbone.layer3.2.attention.gate' in out
    assert Path('p.png').read_bytes()[:4] == b'\x89PNG'
    code, out, _ = run('inspect_checkpoint', 'one.pth', '--no-table')
    assert code == 0 and 'attention.gate' not in out


def test_a_converted_safetensors_file_keeps_its_meta(run):
    save_authors()
    run('convert_checkpoint', 'src.pth', 'dst.safetensors', '--to',
        'mmpretrain')
    from safetensors import safe_open
    with safe_open('dst.safetensors', 'pt') as file:
        meta = json.loads(file.metadata()['meta'])
    assert meta['table'] == 'authors-cifar'
    code, out, _ = run('inspect_checkpoint', 'dst.safetensors', '--no-table')
    assert "converted from the authors' CIFAR" in out
