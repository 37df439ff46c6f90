"""Classifiers and data in another class order, and counts at test time."""
import pytest
import torch
from support.long_tail_sets import image_list, write_list, write_listed_images

from apa_mm.cls.heads import CosineClsHead
from apa_mm.engine import launch
from apa_mm.preflight.job import InputError
from apa_mm.weights import read_checkpoint

# By falling count: class 2, 1, 3, 0.
COUNTS = (2, 4, 7, 3)
CONFIG = """
default_scope = 'mmpretrain'
order = 'native'
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
data_preprocessor = dict(num_classes=4, mean=[127.] * 3, std=[74.] * 3)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='apa_mm.APAResNetCIFAR', depth=20),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        # Logits within [-1, 1]: the offsets show in every prediction.
        type='apa_mm.CosineClsHead', num_classes=4, in_channels=64, scale=1.,
        logit_offset=dict(type='raw')))
loader = dict(batch_size=8, num_workers=0,
              sampler=dict(type='DefaultSampler', shuffle=False))
common = dict(type='apa_mm.ImageListDataset', num_classes=4,
              data_root='data', label_order=order, pipeline=pipeline)
train_dataloader = dict(loader, dataset=dict(common, ann_file='train.txt'))
test_dataloader = dict(
    loader, dataset=dict(common, ann_file='test.txt', test_mode=True,
                         train_ann_file='train.txt'))
test_evaluator = dict(type='Accuracy', topk=(1, ))
test_cfg = dict()
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=.1))
custom_hooks = [dict(type='apa_mm.ClassFrequencyHook')]
randomness = dict(seed=0)
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Two configs, one per class order, and a checkpoint in native order."""
    train = image_list(4, COUNTS, 'train/class{c}/{i}.jpg')
    test = image_list(4, [1], 'val/class{c}/{i}.jpg')
    write_list(tmp_path / 'data/train.txt', train)
    write_list(tmp_path / 'data/test.txt', test)
    write_listed_images(tmp_path / 'data', train + test, size=8)
    (tmp_path / 'native.py').write_text(CONFIG)
    (tmp_path / 'rank.py').write_text(
        CONFIG.replace("order = 'native'", "order = 'frequency'"))
    monkeypatch.chdir(tmp_path)
    launch.train('native.py', work_dir='run')
    return tmp_path


def rewrite(**changes):
    """Change entries of the checkpoint."""
    content = read_checkpoint('run/epoch_1.pth').content
    torch.save(dict(content, **changes), 'other.pth')
    return 'other.pth'


def without_counts():
    state = read_checkpoint('run/epoch_1.pth').content['state_dict']
    assert state['head.class_counts'].tolist() == list(COUNTS)
    return {k: v for k, v in state.items() if k != 'head.class_counts'}


ANOTHER = 'classes in another order than the data set: '


def test_testing_in_another_order_is_refused(job):
    # The counts in the checkpoint would tell too, later; here the names do.
    with pytest.raises(
            InputError,
            match=ANOTHER + "class 0 is 'class0' in the checkpoint and "
            "'class2' in the data set; label_order is 'native'.*set "
            "label_order='native' on every data set"):
        launch.test('rank.py', 'run/epoch_1.pth', work_dir='test')
    assert set(launch.test('native.py', 'run/epoch_1.pth',
                           work_dir='test')) == {'accuracy/top1'}


def test_starting_and_resuming_in_another_order_is_refused(job):
    with pytest.raises(InputError, match=ANOTHER):
        launch.train(
            'rank.py',
            work_dir='new',
            cfg_options=dict(load_from='run/epoch_1.pth'))
    with pytest.raises(InputError, match=ANOTHER):
        launch.train(
            'rank.py',
            work_dir='run',
            resume='auto',
            cfg_options={'train_cfg.max_epochs': 2})


def test_a_backbone_alone_may_be_taken_over(job):
    state = {k: v for k, v in without_counts().items() if 'head' not in k}
    path = rewrite(state_dict=state)
    launch.train(
        'rank.py', work_dir='new', cfg_options=dict(load_from=path))


def test_a_converted_classifier_names_its_order(job):
    path = rewrite(
        state_dict=without_counts(), meta=dict(class_order='frequency-rank'))
    with pytest.raises(
            InputError, match="set label_order='frequency' on every data set"):
        launch.test('native.py', path, work_dir='test')
    launch.test('rank.py', path, work_dir='test')


def test_the_counts_tell_where_no_name_does(job):
    path = rewrite(meta={})
    with pytest.raises(
            ValueError,
            match='CosineClsHead was loaded with the class counts of this '
            'training set in another class order: 3 of 4 classes differ, '
            'class 0 had 2 images and now has 7'):
        launch.test('rank.py', path, work_dir='test')


@pytest.fixture
def predicted(job, monkeypatch):
    """Return a function that tests and gives the probabilities, (4, 4)."""
    kept = []
    original = CosineClsHead._get_predictions

    def keep(self, score, samples):
        result = original(self, score, samples)
        kept.extend(sample.pred_score for sample in result)
        return result

    def run(checkpoint, **options):
        kept.clear()
        launch.test(
            'native.py', checkpoint, work_dir='test', cfg_options=options)
        return torch.stack(kept)

    monkeypatch.setattr(CosineClsHead, '_get_predictions', keep)
    return run


def test_counts_that_the_checkpoint_lacks_are_found(predicted):
    want = predicted('run/epoch_1.pth')
    path = rewrite(state_dict=without_counts())
    torch.testing.assert_close(predicted(path), want)
    # The tested set does not know them: from the training set.
    lost = {'test_dataloader.dataset.train_ann_file': None}
    torch.testing.assert_close(predicted(path, **lost), want)
    plain = predicted(path, **{'model.head.logit_offset': None})
    assert not torch.allclose(plain, want, atol=.01)


def test_counts_that_nobody_knows_end_the_test_before_it_starts(job):
    path = rewrite(state_dict=without_counts())
    text = (job / 'native.py').read_text() + (
        'train_dataloader = train_cfg = optim_wrapper = None\n'
        "test_dataloader['dataset'].pop('train_ann_file')\n")
    (job / 'test_only.py').write_text(text)
    with pytest.raises(
            InputError,
            match='head corrects its predictions for the training images per '
            'class, but neither the checkpoint nor.*set train_dataloader'):
        launch.test('test_only.py', path, work_dir='test')
