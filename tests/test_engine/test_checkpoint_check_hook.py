import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from torch import nn

from apa_mm.preflight.job import InputError


class Tiny(BaseModel):
    """Eight tensors in four layers."""

    def __init__(self, width=2):
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(2, width) if i == 0 else nn.Linear(2, 2)
             for i in range(4)])

    def forward(self, inputs, mode='tensor'):
        out = sum(layer(torch.stack(inputs)).sum() for layer in self.layers)
        return dict(loss=out) if mode == 'loss' else [out]


class Points(torch.utils.data.Dataset):

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return dict(inputs=torch.ones(2))


@pytest.fixture(autouse=True)
def registered():
    MODELS.register_module(name='TinyForHook', module=Tiny)
    DATASETS.register_module(name='PointsForHook', module=Points)
    yield
    MODELS.module_dict.pop('TinyForHook')
    DATASETS.module_dict.pop('PointsForHook')


LOADER = dict(
    dataset=dict(type='PointsForHook'),
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False))


def runner(folder, max_epochs=1, hook=None, **kwargs):
    return Runner.from_cfg(
        Config(
            dict(
                dict(
                    model=dict(type='TinyForHook'),
                    work_dir=str(folder),
                    train_dataloader=LOADER,
                    train_cfg=dict(by_epoch=True, max_epochs=max_epochs),
                    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
                    test_dataloader=LOADER,
                    test_cfg=dict(),
                    test_evaluator=[],
                    custom_hooks=[
                        dict(hook or {}, type='apa_mm.CheckpointCheckHook')
                    ],
                    experiment_name=f'{folder.name}_{len(str(kwargs))}',
                    default_scope='mmengine'), **kwargs)))


def save(path, drop=(), **changes):
    state = Tiny().state_dict()
    for name in drop:
        del state[name]
    state.update(changes)
    torch.save(dict(state_dict=state, meta={}), path)
    return str(path)


def logged(folder):
    return '\n'.join(
        path.read_text() for path in sorted(folder.glob('*/*.log')))


BIASES = [f'layers.{i}.bias' for i in range(4)]


def test_training_and_resuming_the_same_model_pass(tmp_path):
    runner(tmp_path).train()
    job = runner(tmp_path, max_epochs=2, resume=True)
    job.train()
    assert job.epoch == 2
    assert 'checkpoint: 8 of 8 tensors match, 0 missing' in logged(tmp_path)


def test_testing_the_same_model_passes(tmp_path):
    job = runner(tmp_path, load_from=save(tmp_path / 'a.pth'))
    job.test()
    assert 'checkpoint: 8 of 8 tensors match' in logged(tmp_path)


def test_testing_needs_every_tensor(tmp_path):
    path = save(tmp_path / 'a.pth', drop=BIASES)
    job = runner(tmp_path, load_from=path)
    with pytest.raises(
            InputError,
            match=r'not of this model: 4 of 8 tensors match, 4 '
            r'\(layers.0.bias, layers.1.bias, layers.2.bias, \.\.\.\) '
            r'missing.*; evaluate with the config that it was trained with'):
        job.test()


def test_testing_needs_every_shape(tmp_path):
    path = save(
        tmp_path / 'a.pth', **{'layers.0.weight': torch.zeros(3, 2)})
    with pytest.raises(
            InputError, match=r'1 \(layers.0.weight\) of another shape'):
        runner(tmp_path, load_from=path).test()


def test_weights_are_not_applied_when_the_file_is_refused(tmp_path):
    path = save(tmp_path / 'a.pth', drop=BIASES)
    job = runner(tmp_path, load_from=path)
    before = job.model.layers[0].weight.clone()
    with pytest.raises(InputError):
        job.test()
    assert torch.equal(job.model.layers[0].weight, before)


def test_tensors_that_only_the_file_has_are_no_error(tmp_path):
    path = save(tmp_path / 'a.pth', **{'head.weight': torch.zeros(1)})
    runner(tmp_path, load_from=path).test()
    assert '1 (head.weight) unexpected' in logged(tmp_path)


def test_names_of_a_wrapped_model_are_understood(tmp_path):
    state = {f'module.{k}': v for k, v in Tiny().state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'a.pth')
    runner(tmp_path, load_from=str(tmp_path / 'a.pth')).test()


def test_a_bare_state_dict_is_understood(tmp_path):
    torch.save(Tiny().state_dict(), tmp_path / 'a.pth')
    runner(tmp_path, load_from=str(tmp_path / 'a.pth')).test()


@pytest.mark.parametrize('train', [True, False])
def test_a_file_in_another_layout(tmp_path, train):
    torch.save(
        dict(model=Tiny().state_dict(), epoch=3), tmp_path / 'a.pth')
    job = runner(tmp_path, load_from=str(tmp_path / 'a.pth'))
    with pytest.raises(
            InputError,
            match=r"no 'state_dict' \(its keys: \['epoch', 'model'\]\).*"
            'tools/convert_checkpoint.py'):
        job.train() if train else job.test()


def test_load_from_needs_whole_blocks(tmp_path):
    half = save(tmp_path / 'half.pth', drop=BIASES)
    runner(tmp_path, load_from=half).train()
    assert 'load_from: 4 of 8 tensors match, 4 (layers.0.bias' in logged(
        tmp_path)
    block = ['layers.3.weight', 'layers.3.bias']
    less = save(tmp_path / 'less.pth', drop=block)
    with pytest.raises(
            InputError, match=r'6 of 8 tensors match.*2 of these \(such as '
            r'layers.3.weight\).*tools/convert_checkpoint.py'):
        runner(tmp_path, load_from=less).train()
    nothing = save(
        tmp_path / 'no.pth', drop=list(Tiny().state_dict()), other=torch.ones(
            1))
    with pytest.raises(InputError, match='0 of 8 tensors match'):
        runner(tmp_path, load_from=nothing).train()


@pytest.mark.parametrize('train', [True, False])
@pytest.mark.parametrize('last', [torch.nan, 1j])
def test_nan_and_complex_numbers_are_refused(tmp_path, train, last):
    path = save(
        tmp_path / 'a.pth', **{'layers.2.bias': torch.tensor([1, last])})
    job = runner(tmp_path, load_from=path)
    with pytest.raises(InputError, match='infinity in 1 of .*layers.2.bias'):
        job.train() if train else job.test()


def test_resuming_needs_every_tensor(tmp_path):
    runner(tmp_path).train()
    model = dict(type='TinyForHook', width=3)
    job = runner(tmp_path, max_epochs=2, resume=True, model=model)
    with pytest.raises(
            InputError, match=r'2 \(layers.0.weight, layers.0.bias\) of '
            'another shape; resume with'):
        job.train()


def test_weights_alone_cannot_be_resumed_from(tmp_path):
    torch.save(Tiny().state_dict(), tmp_path / 'a.pth')
    job = runner(
        tmp_path, resume=True, load_from=str(tmp_path / 'a.pth'))
    with pytest.raises(
            InputError, match=r"lacks \['meta', 'message_hub'\].*load_from"):
        job.train()


class Named(Points):
    """Points with what mmdet's concatenation of unequal members tells."""
    metainfo = [dict(classes=('a', 'b')), dict(classes=('a', 'b'), palette=[])]


class Headed(Tiny):

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 2)


@pytest.mark.parametrize('saved', [
    dict(classes=('a', 'b')),
    [dict(classes=('a', 'b')), dict(classes=('a', 'b'), palette=[])],
])
def test_class_orders_of_concatenations(tmp_path, monkeypatch, saved):
    monkeypatch.setitem(MODELS.module_dict, 'TinyForHook', Headed)
    monkeypatch.setitem(DATASETS.module_dict, 'PointsForHook', Named)
    path = str(tmp_path / 'a.pth')
    torch.save(dict(state_dict=Headed().state_dict(),
                    meta=dict(dataset_meta=saved)), path)
    runner(tmp_path, load_from=path).test()
    monkeypatch.setattr(Named, 'metainfo', [
        dict(classes=('a', 'b')), dict(classes=('b', 'a'))])
    with pytest.raises(InputError, match="class 0 is 'a' in the checkpoint "
                       "and 'b' in the data set"):
        runner(tmp_path, load_from=path).test()
