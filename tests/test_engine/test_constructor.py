"""Which parameters decay, read from built optimizers."""
import logging

import pytest
import torch
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.runner import Runner
from torch import nn

from apa_mm.engine import APAOptimWrapperConstructor
from apa_mm.layers import AGLU, APA, CosineLinear

DECAY = 0.05
OURS = 'apa_mm.APAOptimWrapperConstructor'


class Net(BaseModel):
    """Units of every kind, one frozen, one shared, below two parts."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Linear(4, 4), nn.BatchNorm1d(4), AGLU(4), AGLU(),
            nn.LayerNorm(4))
        self.backbone[3].requires_grad_(False)
        self.head = nn.Sequential(nn.Linear(4, 4), APA())
        self.again = self.head[1]

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = self.head(self.backbone(torch.stack(list(inputs))))
        return dict(loss=x.square().mean()) if mode == 'loss' else x


def decays(model, optimizer=None, constructor=OURS, **paramwise):
    """Build an optimizer; return the decay of every trained parameter."""
    cfg = dict(
        constructor=constructor,
        optimizer=optimizer or dict(type='SGD', lr=0.1, weight_decay=DECAY))
    if paramwise:
        cfg['paramwise_cfg'] = paramwise
    wrapper = build_optim_wrapper(model, cfg)
    inner = getattr(model, 'module', model)
    names = {p: name for name, p in inner.named_parameters()}
    return {
        names[p]: group['weight_decay']
        for group in wrapper.optimizer.param_groups for p in group['params']
    }


PAIRS = ('backbone.2.kappa', 'backbone.2.lambd', 'head.1.kappa',
         'head.1.lambd')


@pytest.mark.parametrize('optimizer', [
    dict(type='SGD', lr=0.1, weight_decay=DECAY),
    dict(type='AdamW', lr=0.1, weight_decay=DECAY),
    # Its own default decays by 0.01.
    dict(type='AdamW', lr=0.1),
])
def test_kappa_and_lambda_do_not_decay(optimizer):
    found = decays(Net(), optimizer)
    default = optimizer.get('weight_decay', 0.01)
    assert found == {
        'backbone.0.weight': default,
        'backbone.0.bias': default,
        'backbone.1.weight': default,
        'backbone.1.bias': default,
        'backbone.4.weight': default,
        'backbone.4.bias': default,
        'head.0.weight': default,
        'head.0.bias': default,
        **dict.fromkeys(PAIRS, 0.)
    }


def test_the_other_rules_are_those_of_mmengine():
    rules = dict(
        norm_decay_mult=0.5,
        bias_decay_mult=0.,
        bypass_duplicate=True,
        custom_keys={'head.0': dict(lr_mult=0.1, decay_mult=2.)})
    ours = decays(Net(), **rules)
    theirs = decays(
        Net(), constructor='DefaultOptimWrapperConstructor', **rules)
    assert theirs['head.1.kappa'] == DECAY
    assert ours == {**theirs, **dict.fromkeys(PAIRS, 0.)}
    assert ours['backbone.0.bias'] == 0
    assert ours['backbone.1.weight'] == DECAY / 2
    assert ours['head.0.bias'] == DECAY * 2


def test_the_old_rule_in_the_config_gives_the_same_groups():
    """A checkpoint's optimizer state is read by the order of its groups."""
    rules = dict(
        bypass_duplicate=True,
        custom_keys=dict(
            kappa=dict(decay_mult=0.), lambd=dict(decay_mult=0.)))
    old = decays(Net(), constructor='DefaultOptimWrapperConstructor', **rules)
    assert list(decays(Net()).items()) == list(old.items())


@pytest.mark.parametrize('keys,expected', [
    ({'kappa': dict(decay_mult=1.)}, (DECAY, 0., DECAY, 0.)),
    ({'head.1.lambd': dict(decay_mult=.5), 'lambd': dict(decay_mult=1.)},
     (0., DECAY, 0., DECAY / 2)),
    ({'kappa': dict(lr_mult=0.1)}, (0., 0., 0., 0.)),
    # As the configs of DETR have it: it says nothing about kappa.
    ({'backbone': dict(lr_mult=0.1, decay_mult=1.)}, (0., 0., 0., 0.)),
])
def test_only_keys_that_name_them_speak_for_them(keys, expected):
    found = decays(Net(), bypass_duplicate=True, custom_keys=keys)
    assert tuple(found[name] for name in PAIRS) == expected


def test_a_key_of_a_part_still_sets_the_learning_rate():
    wrapper = build_optim_wrapper(
        Net(),
        dict(
            constructor=OURS,
            optimizer=dict(type='SGD', lr=0.1, weight_decay=DECAY),
            paramwise_cfg=dict(
                bypass_duplicate=True,
                custom_keys=dict(backbone=dict(lr_mult=0.1)))))
    undecayed = [
        round(group['lr'], 6) for group in wrapper.optimizer.param_groups
        if group['weight_decay'] == 0
    ]
    assert undecayed == [0.01, 0.01, 0.1, 0.1]


def test_a_model_without_units_is_built_as_by_mmengine():
    model = nn.Sequential(nn.Linear(2, 2), CosineLinear(2, 2))
    assert decays(model) == decays(
        model, constructor='DefaultOptimWrapperConstructor')


def test_a_wrapped_model(one_process_group):
    found = decays(MMDistributedDataParallel(Net()))
    assert [found[name] for name in PAIRS] == [0.] * 4
    assert found['head.0.weight'] == DECAY


@pytest.fixture
def one_process_group(tmp_path):
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/group', rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_layerwise_learning_rates_by_inheritance():
    layer_decay = pytest.importorskip(
        'mmpretrain.engine',
        reason='mmpretrain is not installed').\
        LearningRateDecayOptimWrapperConstructor

    @OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
    class Both(APAOptimWrapperConstructor, layer_decay):
        pass

    model = Net()
    del model.again
    model.get_layer_depth = lambda name: (int(name.startswith('head')), 3)
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='Both',
            optimizer=dict(type='AdamW', lr=0.1, weight_decay=DECAY),
            paramwise_cfg=dict(layer_decay_rate=0.5)))
    groups = {g['param_name']: g for g in wrapper.optimizer.param_groups}
    assert groups['head.1.kappa']['weight_decay'] == 0
    assert groups['head.1.kappa']['lr'] == pytest.approx(0.05)
    assert groups['backbone.2.lambd']['weight_decay'] == 0
    assert groups['backbone.2.lambd']['lr'] == pytest.approx(0.025)
    assert groups['head.0.weight']['weight_decay'] == DECAY


class Points(torch.utils.data.Dataset):

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return dict(inputs=torch.full((4, ), float(index)))


def warnings_of(work_dir, **optim_wrapper):
    """Train for two iterations; return the warnings that name our class."""
    runner = Runner(
        model=Net(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=Points(),
            batch_size=2,
            sampler=dict(type='DefaultSampler', shuffle=False)),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=optim_wrapper,
        custom_hooks=[dict(type='apa_mm.WeightDecayCheckHook')],
        default_scope='mmengine',
        cfg=dict(optim_wrapper=optim_wrapper),
        experiment_name=work_dir.name)
    found = []

    class Keep(logging.Handler):

        def emit(self, record):
            if 'APAOptimWrapperConstructor' in record.getMessage():
                found.append((record.levelname, record.getMessage()))

    runner.logger.addHandler(Keep(logging.WARNING))
    runner.train()
    return found


SGD = dict(type='SGD', lr=0.01, weight_decay=DECAY)


def test_one_warning_before_training_names_the_constructor(tmp_path):
    (level, message), = warnings_of(tmp_path, optimizer=SGD)
    assert level == 'WARNING'
    assert message.startswith('4 parameters kappa and lambda, such as '
                              'backbone.2.kappa, get weight decay')
    assert f"constructor='{OURS}'" in message


@pytest.mark.parametrize('settings', [
    dict(optimizer=SGD, constructor=OURS),
    dict(optimizer=dict(type='SGD', lr=0.01)),
    dict(
        optimizer=SGD,
        paramwise_cfg=dict(
            bypass_duplicate=True,
            custom_keys=dict(
                kappa=dict(decay_mult=0.), lambd=dict(decay_mult=0.)))),
    # Asked for by name.
    dict(
        optimizer=SGD,
        constructor=OURS,
        paramwise_cfg=dict(
            bypass_duplicate=True,
            custom_keys=dict(kappa=dict(decay_mult=1.)))),
])
def test_no_warning_without_need(tmp_path, settings):
    assert warnings_of(tmp_path, **settings) == []

