"""mmdet's own inference and analysis tools on the demo's config."""
import ast
import json
import os
import re
from pathlib import Path

import mmdet
import pytest
from support import forked
from support.demo_jobs import CONFIG, OPTIONS, write_data
from support.optional import NOT_THERE, offer

from apa_mm.engine import launch

pytestmark = pytest.mark.slow
TOOLS = Path(mmdet.__file__).parent / '.mim/tools'
if not TOOLS.is_dir():
    # An editable installation has them at the top of the repository.
    TOOLS = Path(mmdet.__file__).parents[1] / 'tools'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = write_data(tmp_path_factory.mktemp('demo'))
    here = os.getcwd()
    os.chdir(folder)
    try:
        launch.train(CONFIG, work_dir='run', cfg_options=OPTIONS)
    finally:
        os.chdir(here)
    # Barely trained scores are below the demo's threshold.
    (folder / 'child.py').write_text(
        f"_base_ = '{CONFIG}'\n"
        'model = dict(test_cfg=dict(rcnn=dict(score_thr=0.)))\n')
    return folder


@pytest.fixture
def inside(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return trained


def image_of(folder):
    return sorted(folder.glob('data/digits_lvis/**/*.png'))[0]


# A process of its own: a user's script imports mmdet, and not this package.
_INFERENCER = """
from mmdet.apis import DetInferencer
inferencer = DetInferencer({config!r}, 'run/iter_2.pth', device='cpu',
                           palette='random')
result = inferencer({image!r}, out_dir='out', no_save_pred=False,
                    pred_score_thr=0., print_result=False)
prediction, = result['predictions']
assert len(prediction['bboxes']) == len(prediction['scores']) > 0
"""
_INFERENCE = """
from mmdet.apis import inference_detector, init_detector
model = init_detector({config!r}, 'run/iter_2.pth', device='cpu',
                      palette='random')
result = inference_detector(model, {image!r})
assert len(result.pred_instances.bboxes) > 0
assert len(model.dataset_meta['classes']) == 30
"""


@pytest.mark.parametrize('script', [_INFERENCER, _INFERENCE])
def test_inference_without_importing_the_package(script, inside):
    text = script.format(config='child.py', image=str(image_of(inside)))
    succeed(['-c', text], inside)
    if script is _INFERENCER:
        assert (inside / 'out/vis' / image_of(inside).name).is_file()
        file, = inside.glob('out/preds/*.json')
        assert json.loads(file.read_text())['masks']


def succeed(words, cwd):
    path = f"{cwd}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    result = forked.run(words, cwd=cwd, env=dict(
        os.environ, MPLBACKEND='Agg', PYTHONPATH=path))
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr
    return result.stdout + result.stderr


def test_flops(inside):
    text = succeed([
        TOOLS / 'analysis_tools/get_flops.py', CONFIG, '--num-images', 1
    ], inside)
    assert 'Flops: ' in text and 'Params: ' in text


def test_browsing_the_dataset(inside):
    succeed([
        TOOLS / 'analysis_tools/browse_dataset.py', CONFIG,
        '--output-dir', 'browsed', '--not-show', '--show-interval', 0
    ], inside)
    assert len(list(inside.glob('browsed/**/*.png'))) >= 20


@pytest.fixture(scope='module')
def dumped(trained):
    """What mmdet's test.py leaves of four images: config, file, figures."""
    (trained / 'few.py').write_text("""_base_ = 'child.py'
test_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(indices=4))
""")
    # analyze_logs asks it for a style alone.
    (trained / 'seaborn.py').write_text('def set_style(style): pass')
    succeed([TOOLS / 'test.py', 'few.py', 'run/iter_2.pth', '--work-dir',
             'tested', '--out', 'results.pkl'], trained)
    file, = trained.glob('tested/*/*.json')
    found = json.loads(file.read_text())
    assert {name.split('/')[0] for name in found} >= {'lvis', 'exhaustive'}
    return found


@pytest.mark.parametrize('tool, words, pictures', [
    ('confusion_matrix', ['few.py', 'results.pkl', 'counts'],
     {'counts/*.png': 1}),
    ('analyze_results', ['few.py', 'results.pkl', 'shown', '--topk', 1],
     {'shown/good/*.png': 1, 'shown/bad/*.png': 1}),
    ('eval_metric', ['few.py', 'results.pkl'], {}),
    ('analyze_logs', ['plot_curve', 'run/*/vis_data/scalars.json', '--keys',
                      'loss', '--out', 'loss.png'], {'loss.png': 1}),
])
def test_analysis_tools(tool, words, pictures, inside, dumped):
    words = [next(map(str, inside.glob(word)), word) if '*' in str(word)
             else word for word in words]
    text = succeed([TOOLS / f'analysis_tools/{tool}.py', *words], inside)
    for pattern, number in pictures.items():
        assert len(list(inside.glob(pattern))) == number
    if tool == 'eval_metric':
        found = ast.literal_eval(re.search(r'^{.*}$', text, re.M)[0])
        assert 'lvis/segm_AP' in found
        assert found.items() <= dumped.items()


def test_printing_the_config(inside):
    text = succeed([TOOLS / 'misc/print_config.py', CONFIG], inside)
    assert "type='apa_mm.APAResNet'" in text
    assert "type='apa_mm.GOLLoss'" in text


def test_plain_and_augmented_testing(inside):
    plain, augmented = (
        launch.test(
            CONFIG,
            'run/iter_2.pth',
            tta=tta,
            # As tools/test.py: mmdet's own merges no masks.
            merge_views='apa_mm.LargeVocabTTAModel',
            work_dir='tta',
            cfg_options={'model.test_cfg.rcnn.score_thr': 0.})
        for tta in (False, True))
    assert set(plain) == set(augmented)
    assert 'lvis/segm_APr' in plain
    assert all(-1 <= value <= 1 for value in augmented.values())


@pytest.mark.skipif(not offer('sahi', 'sahi*'), reason=f'sahi is {NOT_THERE}')
def test_sliced_inference_finds_what_inference_finds(inside):
    from mmdet.apis import inference_detector, init_detector
    from sahi import AutoDetectionModel
    from sahi.predict import get_sliced_prediction
    # It looks for a pipeline in the training set, wrapped ones have none, and
    # drops empty masks, which a barely trained detector has.
    (inside / 'sliced.py').write_text("""_base_ = 'child.py'
train_dataloader = dict(dataset=dict(
    _delete_=True, type='LVISV1Dataset', pipeline=_base_.train_pipeline))
model = dict(test_cfg=dict(rcnn=dict(mask_thr_binary=0.)))
""")
    image = str(image_of(inside))
    detector = AutoDetectionModel.from_pretrained(
        model_type='mmdet', model_path='run/iter_2.pth',
        config_path='sliced.py', confidence_threshold=0., device='cpu')
    found = get_sliced_prediction(
        image, detector, slice_height=128, slice_width=128,
        postprocess_match_threshold=1.1, perform_standard_pred=False,
        verbose=0).object_prediction_list
    model = init_detector('sliced.py', 'run/iter_2.pth', device='cpu',
                          palette='random')
    want = inference_detector(model, image).pred_instances
    assert len(found) > 0
    got = sorted((each.category.id, each.score.value) for each in found)
    want = sorted(zip(want.labels.tolist(), want.scores.tolist(), strict=True))
    assert [label for label, _ in got] == [label for label, _ in want]
    assert [score for _, score in got] == pytest.approx(
        [score for _, score in want])
