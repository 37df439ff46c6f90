import pytest
from mmengine.config import Config
from support.configs import ROOT

from apa_mm.losses import GOLLoss
from apa_mm.preflight.loss_checks import check_losses, drop_threshold
from apa_mm.utils.imports import HAS_MMDET

GOL = dict(type='apa_mm.GOLLoss', num_classes=3)
SAMPLED = dict(type='apa_mm.SampledSigmoidLoss', num_classes=3)
HOOK = dict(type='apa_mm.ClassFrequencyHook')


def loss_problems(cfg, training):
    return check_losses(cfg, ['train'] if training else ['test']).problems


def detector(loss=GOL, heads=1, **cfg):
    head = dict(type='Shared2FCBBoxHead', loss_cls=loss)
    return Config(
        dict(
            model=dict(
                roi_head=dict(bbox_head=head if heads == 1 else [head] *
                              heads)),
            **cfg))


@pytest.mark.parametrize('cfg', [
    detector(custom_hooks=[HOOK]),
    detector(heads=3, custom_hooks=[HOOK]),
    detector(load_from='a.pth'),
    detector(dict(GOL, rare_threshold=0)),
    detector(dict(SAMPLED, power=0)),
    detector(dict(type='CrossEntropyLoss')),
    Config(dict()),
])
def test_sound_configs(cfg):
    assert loss_problems(cfg, training=True) == []


@pytest.mark.parametrize('loss', [GOL, SAMPLED])
def test_nothing_tells_the_counts(loss):
    problem, = loss_problems(detector(loss), training=True)
    assert problem.startswith(
        f'model.roi_head.bbox_head.loss_cls is {loss["type"]}, which needs')
    assert loss_problems(detector(loss), training=False) == []


def test_a_detector_in_another_model():
    inner = detector().model
    cfg = Config(dict(model=dict(type='SoftTeacher', detector=inner)))
    assert loss_problems(cfg, training=False) == []


def test_every_stage_is_named():
    problems = loss_problems(detector(heads=2), training=True)
    assert [p.split(' ')[0] for p in problems] == [
        'model.roi_head.bbox_head[0].loss_cls',
        'model.roi_head.bbox_head[1].loss_cls'
    ]


@pytest.mark.parametrize('place', [
    dict(bbox_head=dict(loss_cls=GOL)),
    dict(rpn_head=dict(loss_cls=GOL)),
    dict(roi_head=dict(mask_head=dict(loss_mask=GOL))),
    dict(roi_head=dict(bbox_head=dict(loss_bbox=GOL))),
])
def test_gol_where_nobody_understands_it(place):
    cfg = Config(dict(model=place, custom_hooks=[HOOK]))
    problem, = loss_problems(cfg, training=False)
    assert 'only box heads of a roi_head that ask their loss' in problem


def test_classifiers_and_classes_instead_of_names():
    head = dict(loss=dict(type='apa_mm.BalancedSoftmaxLoss'))
    cfg = Config(dict(model=dict(head=head)))
    assert len(loss_problems(cfg, training=True)) == 1
    # Configs in Python's own syntax name classes.
    hook = dict(type=GOLLoss)
    cfg = dict(model=dict(head=hook))
    assert len(loss_problems(cfg, training=False)) == 1


@pytest.mark.skipif(not HAS_MMDET, reason='mmdet is missing')
@pytest.mark.parametrize('kind, asks', [
    ('Shared2FCBBoxHead', True),
    ('Shared4Conv1FCBBoxHead', True),
    ('mmdet.ConvFCBBoxHead', True),
    ('SCNetBBoxHead', True),
    ('apa_mm.LargeVocabBBoxHead', True),
    ('DoubleConvFCBBoxHead', False),
    ('SABLHead', False),
    ('DIIHead', False),
    ('MultiInstanceBBoxHead', False),
    ('NoSuchHead', True),  # the Runner says so
])
def test_heads_are_judged_by_their_type(kind, asks):
    cfg = detector(custom_hooks=[HOOK], default_scope='mmdet')
    cfg.model.roi_head.bbox_head.type = kind
    problems = loss_problems(cfg, training=True)
    assert len(problems) == (not asks)
    # A base of another library leaves its scope in the parts.
    cfg.default_scope = 'mmpretrain'
    cfg.model.roi_head.bbox_head._scope_ = 'mmdet'
    assert loss_problems(cfg, training=True) == problems


@pytest.mark.skipif(not HAS_MMDET, reason='mmdet is missing')
@pytest.mark.parametrize('kind, fails', [
    ('Shared2FCBBoxHead', False),
    ('DoubleConvFCBBoxHead', True),
])
def test_the_judgement_is_what_the_heads_do(kind, fails):
    """A head that does not ask has a channel for the background."""
    from mmdet.registry import MODELS
    sizes = dict(in_channels=8, roi_feat_size=1, num_classes=3)
    if fails:
        sizes.update(num_convs=1, num_fcs=1, conv_out_channels=8)
    head = MODELS.build(dict(type=kind, loss_cls=GOL, **sizes))
    asked = head.loss_cls.get_cls_channels(3)
    assert (head.fc_cls.out_features != asked) == fails


def federated(dataset='apa_mm.FederatedLVISDataset',
              roi_head='apa_mm.FederatedRoIHead', loss=GOL, **wrapper):
    """Return a config of a loss that asks for LVIS's lists."""
    # Lists are of the training set alone.
    val = dict(dataset=dict(type='LVISV1Dataset', ann_file='b.json'))
    members = [dict(type=kind, ann_file='a.json', pipeline=[])
               for kind in ('apa_mm.FederatedLVISDataset', dataset)]
    data = dict(type='ConcatDataset', datasets=members)
    if wrapper:
        data = dict(wrapper, dataset=data)
    cfg = detector(
        dict(loss, unverified_only=True), custom_hooks=[HOOK],
        default_scope='mmdet', train_dataloader=dict(dataset=data),
        val_dataloader=val)
    cfg.model.roi_head.type = roi_head
    return cfg


@pytest.mark.skipif(not HAS_MMDET, reason='mmdet is missing')
@pytest.mark.parametrize('loss', [GOL, SAMPLED])
@pytest.mark.parametrize('parts, found', [
    (dict(), False),
    (dict(roi_head='apa_mm.FederatedCascadeRoIHead'), False),
    (dict(type='ClassBalancedDataset', oversample_thr=1e-3), False),
    (dict(dataset='apa_mm.LVISV1Dataset'), True),
    (dict(dataset='mmdet.CocoDataset'), True),
    (dict(roi_head='StandardRoIHead'), True),
    # Its own pipeline packs no lists.
    (dict(type='MultiImageMixDataset', pipeline=[]), True),
])
def test_lists_of_verified_classes_come_or_are_missed(loss, parts, found):
    cfg = federated(loss=loss, **parts)
    assert loss_problems(cfg, training=False) == []
    problems = loss_problems(cfg, training=True)
    assert len(problems) == found
    if found:
        assert problems[0] == (
            f'model.roi_head.bbox_head.loss_cls is {loss["type"]} with '
            'unverified_only, and nothing tells it what was looked for on an '
            "image; set model.roi_head.type='apa_mm.FederatedRoIHead' (or "
            'FederatedCascadeRoIHead) and train on nothing but '
            'apa_mm.FederatedLVISDataset, or give --skip-checks if code of '
            'yours calls set_verified')


@pytest.mark.skipif(not HAS_MMDET, reason='mmdet is missing')
def test_children_of_the_federated_types_bring_the_lists():
    from apa_mm.det.federated import FederatedLVISDataset, FederatedRoIHead

    class Head(FederatedRoIHead):
        pass

    class Data(FederatedLVISDataset):
        pass

    cfg = federated(Data, Head)
    assert loss_problems(cfg, training=True) == []
    del cfg.model.roi_head.bbox_head.loss_cls['unverified_only']
    cfg.model.roi_head.type = 'StandardRoIHead'
    assert loss_problems(cfg, training=True) == []


@pytest.mark.skipif(not HAS_MMDET, reason='mmdet is missing')
@pytest.mark.parametrize('path', sorted(
    (ROOT / 'configs').rglob('*gol-verified*.py')), ids=lambda p: p.stem)
def test_recipes_with_lists_have_them(path):
    cfg = Config.fromfile(path)
    assert loss_problems(cfg, training=True) == []
    cfg.model.roi_head.type = 'StandardRoIHead'
    problem, = loss_problems(cfg, training=True)
    assert 'with unverified_only, and nothing tells it' in problem


def test_the_threshold_below_which_negatives_are_dropped():
    assert drop_threshold(detector()) == 0.0011
    assert drop_threshold(detector(dict(GOL, rare_threshold=0.1))) == 0.1
    assert drop_threshold(detector(dict(GOL, unverified_only=True))) == 0
    assert drop_threshold(detector(SAMPLED)) == drop_threshold(Config()) == 0
    cfg = detector(heads=2)
    cfg.model.roi_head.bbox_head[0].loss_cls = dict(GOL, rare_threshold=0)
    assert drop_threshold(cfg) == 0.0011
