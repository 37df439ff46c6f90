import pytest
import torch
from mmengine.model import BaseModel, BaseTTAModel
from torch import nn

from apa_mm.weights import CheckpointError
from apa_mm.weights.load_check import (Comparison, find_broken, find_gaps,
                                       rehearse_loading, state_dict_of,
                                       unwrap)


class Renaming(nn.Module):
    """Takes ``old`` for ``new`` and any size for ``table``, as it loads."""

    def __init__(self):
        super().__init__()
        self.new = nn.Parameter(torch.zeros(3))
        self.register_buffer('table', torch.zeros(0))
        self.child = nn.Linear(2, 2)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        if prefix + 'old' in state_dict:
            state_dict[prefix + 'new'] = state_dict.pop(prefix + 'old')
        if prefix + 'table' in state_dict:
            self.table = torch.zeros_like(state_dict[prefix + 'table'])
        super()._load_from_state_dict(state_dict, prefix, *args)


def names(model, state):
    return rehearse_loading(model, state)


def test_names_and_shapes_are_compared():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    state = model.state_dict()
    del state['0.bias']
    state['1.weight'] = torch.zeros(2, 3)
    state['2.weight'] = torch.zeros(1)
    found = names(model, state)
    assert found.matched == ['0.weight', '1.bias']
    assert found.missing == ['0.bias']
    assert found.reshaped == ['1.weight']
    assert found.unexpected == ['2.weight']


def test_a_module_may_rename_and_resize_while_it_loads():
    model = nn.Sequential(Renaming())
    state = model.state_dict()
    state['0.old'] = state.pop('0.new') + 5
    state['0.table'] = torch.ones(7)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = names(model, state)
    assert found.missing == found.reshaped == found.unexpected == []
    assert len(found.matched) == 4
    # The rehearsal has changed neither the model nor the file's dict.
    assert model.state_dict().keys() == before.keys()
    assert torch.equal(model[0].new, before['0.new'])
    assert model[0].table.shape == (0, ) and '0.old' in state
    # Nor does it where the whole model is such a module.
    alone = {name[2:]: value for name, value in state.items()}
    assert names(model[0], alone).missing == [] and 'old' in alone


def test_a_hook_may_rename_too():
    model = nn.Sequential(nn.Linear(2, 1))
    model[0].register_load_state_dict_pre_hook(
        lambda module, state, prefix, *_: state.update(
            {prefix + 'weight': state.pop(prefix + 'kernel')}))
    state = {'0.kernel': torch.zeros(1, 2), '0.bias': torch.zeros(1)}
    found = names(model, state)
    assert found.missing == found.unexpected == []


def test_batch_norm_may_lack_its_counter():
    model = nn.BatchNorm1d(2)
    state = model.state_dict()
    del state['num_batches_tracked']
    assert names(model, state).missing == []
    del state['running_mean']
    assert names(model, state).missing == ['running_mean']


def test_buffers_that_are_not_saved_do_not_count():
    model = nn.Module()
    model.register_buffer('mean', torch.zeros(3), persistent=False)
    assert names(model, {}).missing == []


def test_the_rehearsal_agrees_with_loading(tmp_path):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Renaming(),
        nn.MultiheadAttention(4, 2))
    state = dict(list(model.state_dict().items())[::2])
    real = model.load_state_dict(state, strict=False)
    found = names(model, state)
    counters = {n for n in real.missing_keys if 'num_batches' in n}
    assert set(found.missing) == set(real.missing_keys) - counters
    assert found.unexpected == real.unexpected_keys == []


def test_unwrap_reaches_the_model_itself():

    class Flip(BaseTTAModel):

        def merge_preds(self, data_samples_list):
            return data_samples_list[0]

    class Plain(BaseModel):

        def forward(self, inputs):
            return inputs

    inner = Plain()
    assert unwrap(Flip(module=inner)) is inner
    assert unwrap(nn.DataParallel(Flip(module=inner))) is inner
    assert unwrap(inner) is inner


def test_what_must_not_stay_random():
    matched = ['backbone.conv1.weight', 'backbone.layer1.0.conv1.weight',
               'head.0.weight', 'neck.0.weight',
               'roi_head.bbox_head.fc_cls.weight']
    missing = [
        'backbone.layer1.0.bn1.bias', 'backbone.bn1.bias',  # all of it
        'head.0.act.kappa', 'head.0.act.lambd',  # what is learned
        'neck.1.conv.weight', 'neck.1.conv.bias',  # a block
        # These may be new:
        'head.fc.bias', 'head.0.bias', 'mask_head.act.kappa',
        'roi_head.mask_head.convs.0.weight',
    ]
    found = Comparison(matched, missing, ['fc.weight'], [
        'head.fc.weight', 'backbone.bn1.weight'])
    assert find_gaps(found) == missing[:6] + ['backbone.bn1.weight']
    assert find_gaps(found, whole=True) == missing + found.reshaped


def test_a_comparison_is_one_line():
    names = ['a', 'b\n', 'c', 'd']
    assert str(Comparison(['x'], names, [], ['\x1b[2J'])) == (
        r'1 of 6 tensors match, 4 (a, b\n, c, ...) missing, 0 unexpected, '
        r'1 (\x1b[2J) of another shape')


def test_the_state_dict_is_that_which_mmengine_loads():
    net = nn.Linear(2, 1)
    state = net.state_dict()
    state._metadata = versions = {'': dict(version=3)}
    for content in (state, dict(state_dict=state, meta={})):
        found = state_dict_of(content)
        assert found.keys() == state.keys() and type(found) is type(state)
        assert found._metadata is versions
    assert list(state_dict_of({'module.a': torch.ones(1)})) == ['a']
    for content, words in ((dict(b=1, a=2), r"keys: \['a', 'b'\]"),
                           ([state], r'keys: \[\]'),
                           (dict(state_dict=dict(a=[1])), "'state_dict'")):
        with pytest.raises(CheckpointError, match=words):
            state_dict_of(content)


class Versioned(nn.Linear):
    """Reads old files in another way; holds a buffer and no parameter."""

    def __init__(self):
        super().__init__(1, 1, bias=False)
        self.register_buffer('nothing', None)
        self.register_parameter('nobody', None)
        self.seen = []

    def _load_from_state_dict(self, state, prefix, metadata, *args):
        self.seen.append(metadata.get('version'))
        super()._load_from_state_dict(state, prefix, metadata, *args)


def test_modules_are_told_the_version_of_the_file():
    model = nn.Sequential(Versioned())
    model[0].weight.requires_grad_(False)
    state = model.state_dict()
    state._metadata = {'0': dict(version=7)}
    before = dict(vars(model[0]))
    assert names(model, state).matched == ['0.weight']
    assert model[0].seen == [7]
    assert vars(model[0]) == before


def test_a_name_that_the_model_lacks_is_not_looked_at():
    model = nn.Linear(2, 1)
    state = dict(weight=torch.tensor([[1, torch.nan]]).to('meta'),
                 counter=torch.tensor(3))
    assert find_broken(model, state, ['weight', 'bias', 'counter']) == []
    assert find_broken(model, dict(other=torch.tensor(torch.inf)),
                       ['other']) == ['other']


def test_infinity_counts_only_where_the_model_has_none():
    model = nn.Linear(2, 1)
    model.register_buffer('mask', torch.tensor([-torch.inf]))
    state = dict(weight=torch.tensor([[1, torch.nan]]), bias=torch.zeros(1),
                 mask=torch.tensor([-torch.inf]))
    assert find_broken(model, state, list(state)) == ['weight']


def test_complex_numbers_count_only_where_the_model_has_none():
    model = nn.Linear(2, 1)
    model.register_buffer('turn', torch.ones(1, dtype=torch.cfloat))
    state = {k: v.to(torch.cfloat) for k, v in model.state_dict().items()}
    assert find_broken(model, state, list(state)) == ['weight', 'bias']


@pytest.mark.parametrize('last, broken', [(1., []), (float('nan'), ['bias'])])
def test_weights_of_eight_bits_are_looked_at(last, broken):
    state = dict(bias=torch.tensor([last]).to(torch.float8_e4m3fn))
    assert find_broken(nn.Linear(2, 1), state, ['bias']) == broken
