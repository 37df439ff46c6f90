"""Tests of GOLLoss: mmdet's contract, every argument, frequencies, DDP."""
import contextlib
import copy

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from mmengine.logging import MMLogger
from mmengine.runner.checkpoint import load_state_dict
from support.two_processes import run_two
from torch import nn

from apa_mm.losses import GOLLoss
from apa_mm.losses.utils import weight_reduce_loss
from apa_mm.registry import MODELS

COUNTS, NUM_IMAGES = [500, 1, 40, 1], 1000  # classes 1 and 3 are rare
C = 4
BACKGROUND = C


def make(**kwargs):
    loss = GOLLoss(num_classes=C, **kwargs)
    loss.set_class_frequency(COUNTS, NUM_IMAGES)
    return loss


def scores_of(n, dtype=torch.float64):
    return torch.randn(n, C, dtype=dtype) * 2


def plain(scores, labels, keep_rare):
    """Return the loss per RoI by way of p; scores must be above -6."""
    p = torch.exp(-torch.exp(-scores.clamp(-10, 10)))
    target = F.one_hot(labels.clamp(0, C), C + 1)[:, :C].to(p.dtype)
    each = -torch.where(target > 0, p.log(), (1 - p).log())
    weight = torch.ones_like(each)
    for i, label in enumerate(labels.tolist()):
        for j in (1, 3):
            if j != label and not (label == BACKGROUND and keep_rare):
                weight[i, j] = 0
    return (each * weight).sum(1)


# All foreground is rare (rho 1), none of it is (rho 0), there is none.
ALL_RARE = torch.tensor([1, 3, BACKGROUND, BACKGROUND, 3])
NONE_RARE = torch.tensor([0, 2, BACKGROUND, BACKGROUND, 0])
NO_FOREGROUND = torch.tensor([BACKGROUND] * 5)


@pytest.mark.parametrize('labels, keep_rare', [(ALL_RARE, True),
                                               (NONE_RARE, False),
                                               (NO_FOREGROUND, True)])
def test_value_is_the_sum_over_the_number_of_rois(labels, keep_rare):
    scores = scores_of(5)
    expected = plain(scores, labels, keep_rare)
    loss = make()
    torch.testing.assert_close(loss(scores, labels), expected.sum() / 5)
    torch.testing.assert_close(
        loss(scores, labels, reduction_override='none'), expected)
    torch.testing.assert_close(
        loss(scores, labels, reduction_override='sum'), expected.sum())


def test_mmdets_average_is_the_same_number():
    scores = scores_of(5)
    weights = torch.ones(5, dtype=torch.float64)
    factor = max(torch.sum(weights > 0).float().item(), 1.)
    loss = make()
    torch.testing.assert_close(
        loss(scores, NONE_RARE, weights, avg_factor=factor),
        loss(scores, NONE_RARE))


def test_every_loss_argument_takes_effect():
    scores, weight = scores_of(5), torch.tensor([0., 1., 2., 0.5, 3.])
    each = plain(scores, NONE_RARE, False)
    loss = make()
    torch.testing.assert_close(
        loss(scores, NONE_RARE, weight), (each * weight).sum() / 5)
    torch.testing.assert_close(
        loss(scores, NONE_RARE, avg_factor=7), each.sum() / 7)
    torch.testing.assert_close(
        loss(scores, NONE_RARE, avg_factor=torch.tensor(7.)), each.sum() / 7)
    torch.testing.assert_close(
        loss(scores, NONE_RARE, weight, 7, 'none'), each * weight)
    torch.testing.assert_close(
        loss(scores, NONE_RARE, weight, reduction_override='sum'),
        (each * weight).sum())
    assert loss(scores, NONE_RARE, weight * 0, avg_factor=0) == 0


def test_every_constructor_argument_takes_effect():
    scores = scores_of(5) * 3
    base = make()(scores, ALL_RARE)
    torch.testing.assert_close(make(loss_weight=2.)(scores, ALL_RARE),
                               2 * base)
    torch.testing.assert_close(
        make(reduction='sum')(scores, ALL_RARE), 5 * base)
    assert make(reduction='none')(scores, ALL_RARE).shape == (5, )
    # 40 of 1000 images: class 2 is rare too from 0.041 on.
    assert make().rare.tolist() == [False, True, False, True]
    assert make(rare_threshold=0.041).rare.tolist() == [
        False, True, True, True]
    assert make(rare_threshold=0.041)(scores, NONE_RARE) != make()(scores,
                                                                 NONE_RARE)
    torch.testing.assert_close(
        make(clamp=(-1, 1))(scores, ALL_RARE),
        plain(scores.clamp(-1, 1), ALL_RARE, True).mean())
    torch.testing.assert_close(
        make(ignore_index=3)(scores, ALL_RARE, reduction_override='none')[[
            1, 4
        ]],
        torch.zeros(2, dtype=torch.float64))
    target = F.one_hot(ALL_RARE, C + 1)[:, :C].double()
    bce = F.binary_cross_entropy_with_logits(scores, target, reduction='none')
    keep = torch.ones(5, C)
    keep[[0, 1, 4], [3, 1, 1]] = 0
    torch.testing.assert_close(
        make(activation='sigmoid')(scores, ALL_RARE),
        (bce * keep).sum() / 5)


def test_ignored_labels_weigh_nothing():
    scores = scores_of(5).requires_grad_()
    labels = NONE_RARE.clone()
    labels[1] = -100
    loss = make()(scores, labels)
    expected = plain(scores.detach(), NONE_RARE, False)
    torch.testing.assert_close(loss, (expected.sum() - expected[1]) / 5)
    loss.backward()
    assert not scores.grad[1].any() and scores.grad[0].any()
    # The only foreground is ignored, so every rare negative is kept.
    labels = torch.tensor([255] + [BACKGROUND] * 4)
    torch.testing.assert_close(
        make(ignore_index=255)(scores[:5].detach(), labels),
        plain(scores.detach(), NO_FOREGROUND, True)[1:].sum() / 5)


def test_no_rois_give_a_finite_zero_in_the_graph():
    scores = torch.zeros(0, C, requires_grad=True)
    loss = make()(scores, torch.zeros(0, dtype=torch.long))
    assert loss == 0
    loss.backward()
    assert scores.grad.shape == (0, C)


# --- frequencies ------------------------------------------------------------
def test_frequencies_of_lvis_borders():
    # 109 of 99,388 images is rare, 110 is not.
    loss = GOLLoss(num_classes=3)
    loss.set_class_frequency(torch.tensor([109, 110, 99388]), 99388)
    assert loss.rare.tolist() == [True, False, False]
    loss.set_class_frequency([109, 110, 99388], 100170)
    assert loss.rare.tolist() == [True, True, False]


def test_training_without_frequencies_says_how_to_mend():
    loss = GOLLoss(num_classes=C)
    with pytest.raises(
            RuntimeError,
            match='was not given them; add custom_hooks.*'
            'ClassFrequencyHook.*or load a checkpoint'):
        loss(scores_of(5), NONE_RARE)
    loss.eval()
    torch.testing.assert_close(
        loss(scores_of(5) * 0, NO_FOREGROUND),
        torch.tensor(4 * 0.458675, dtype=torch.float64), rtol=1e-5, atol=0)
    # Nothing can be rare below a frequency of 0.
    GOLLoss(num_classes=C, rare_threshold=0)(scores_of(5), NONE_RARE)


def test_state_dict_carries_the_frequencies():
    source, target = make(), GOLLoss(num_classes=C)
    assert set(source.state_dict()) == {
        'class_counts', 'num_images', 'has_frequency'}
    assert source.state_dict()['has_frequency'].shape == ()
    target.load_state_dict(source.state_dict())
    assert target.class_counts.tolist() == COUNTS
    assert target.num_images == NUM_IMAGES and target.has_frequency
    scores = scores_of(5)
    torch.testing.assert_close(
        target(scores, NONE_RARE), source(scores, NONE_RARE))
    # mmengine loads a model module by module, in its own function.
    other = GOLLoss(num_classes=C)
    load_state_dict(
        nn.ModuleDict(dict(head=other)),
        {f'head.{k}': v for k, v in source.state_dict().items()},
        strict=True)
    torch.testing.assert_close(
        other(scores, NONE_RARE), source(scores, NONE_RARE))
    clone = copy.deepcopy(target)
    torch.testing.assert_close(
        clone(scores, NONE_RARE), source(scores, NONE_RARE))


def test_unset_state_is_loaded_as_unset():
    loss = make()
    loss.load_state_dict(GOLLoss(num_classes=C).state_dict())
    with pytest.raises(RuntimeError, match='was not given them'):
        loss(scores_of(5), NONE_RARE)


def test_a_checkpoint_without_frequencies_is_complete():
    # As of the authors: nothing is missing, but training asks for them.
    loss = GOLLoss(num_classes=C)
    state = {}
    loss.load_state_dict(state)
    assert state == {}
    with pytest.raises(RuntimeError, match='was not given them'):
        loss(scores_of(5), NONE_RARE)
    ready = make()
    ready.load_state_dict({})
    ready(scores_of(5), NONE_RARE)
    partial = dict(class_counts=torch.ones(C, dtype=torch.long))
    with pytest.raises(RuntimeError, match='Missing key.*num_images'):
        loss.load_state_dict(partial)
    loss.load_state_dict(partial, strict=False)
    assert not loss.class_counts.any()


@pytest.mark.parametrize('load', [
    lambda loss, state: loss.load_state_dict(state, strict=False),
    lambda loss, state: load_state_dict(loss, state, strict=False),
])
def test_counts_of_another_number_of_classes_are_not_loaded(load):
    """All or none; and what is saved on says that they are not known."""
    source = GOLLoss(num_classes=3)
    source.set_class_frequency([500, 1, 40], NUM_IMAGES)
    loss = GOLLoss(num_classes=C)
    with contextlib.suppress(RuntimeError):  # torch's own report
        load(loss, source.state_dict())
    assert not loss.has_frequency and loss.num_images == 0
    saved = loss.state_dict()
    with pytest.raises(
            RuntimeError,
            match=r'was not given them \(the checkpoint has those of 3 '
            r'classes, not of 4\); add.*ClassFrequencyHook'):
        loss(scores_of(5), NONE_RARE)
    again = GOLLoss(num_classes=C)
    again.load_state_dict(saved)
    with pytest.raises(RuntimeError, match='was not given them; add'):
        again(scores_of(5), NONE_RARE)
    ready = make()
    with contextlib.suppress(RuntimeError):
        load(ready, source.state_dict())
    assert ready.class_counts.tolist() == COUNTS
    assert ready.num_images == NUM_IMAGES


def lines_of(caplog, function):
    logger = MMLogger.get_instance('gol-loss')
    logger.addHandler(caplog.handler)
    caplog.clear()
    function()
    logger.removeHandler(caplog.handler)
    return [record.getMessage() for record in caplog.records]


def test_training_with_the_counts_of_a_checkpoint_is_said_once(caplog):
    loss = GOLLoss(num_classes=C)
    loss.load_state_dict(make().state_dict())
    loss.eval()
    assert lines_of(caplog, lambda: loss(scores_of(5), NONE_RARE)) == []
    loss.train()
    line, = lines_of(caplog, lambda: loss(scores_of(5), NONE_RARE))
    assert line.startswith('GOLLoss trains with the class counts of the check')
    assert lines_of(caplog, lambda: loss(scores_of(5), NONE_RARE)) == []


def test_the_hook_wins_over_a_checkpoint(caplog):
    loss = GOLLoss(num_classes=C)
    loss.load_state_dict(make().state_dict())
    line, = lines_of(caplog,
                     lambda: loss.set_class_frequency([5, 4, 3, 1], 9000))
    assert 'replaced by those of another training set: 3 of 4' in line
    assert loss.num_images == 9000 and loss.rare.all()
    assert lines_of(caplog, lambda: loss(scores_of(5), NONE_RARE)) == []


def test_on_the_meta_device():
    with torch.device('meta'):
        loss = GOLLoss(num_classes=C)
    assert loss.class_counts.is_meta
    loss.load_state_dict(make().state_dict(), assign=True)
    scores = scores_of(5)
    torch.testing.assert_close(
        loss(scores, NONE_RARE), make()(scores, NONE_RARE))
    with torch.device('meta'):
        loss = GOLLoss(num_classes=C)
    loss.to_empty(device='cpu').load_state_dict(make().state_dict())
    torch.testing.assert_close(
        loss(scores, NONE_RARE), make()(scores, NONE_RARE))


def test_the_mean_over_rois_that_count():
    """As mmdet's losses: only where no avg_factor is given."""
    scores, labels = scores_of(5), NONE_RARE.clone()
    labels[1] = -100
    loss, plain_loss = make(avg_non_ignore=True), make()
    torch.testing.assert_close(
        loss(scores, labels), plain_loss(scores, labels) * 5 / 4)
    torch.testing.assert_close(
        loss(scores, labels, avg_factor=5.), plain_loss(scores, labels))
    torch.testing.assert_close(
        loss(scores, labels, reduction_override='sum'),
        plain_loss(scores, labels, reduction_override='sum'))
    assert loss(scores, torch.full((5, ), -100)) == 0


def test_casting_keeps_the_counts():
    loss = make().half().to(torch.device('cpu'))
    assert loss.class_counts.dtype == torch.int64
    assert loss.class_counts.tolist() == COUNTS
    out = loss(scores_of(5, torch.float16), NONE_RARE)
    assert out.dtype == torch.float32


@pytest.mark.parametrize('counts, num_images, match', [
    ([1, 2, 3], 10, 'num_classes=4, but the training set has 3 classes'),
    ([1, 2, 3, -1], 10, 'they range from -1 to 3'),
    ([1, 2, 3, 11], 10, 'they range from 1 to 11; count every image once'),
    ([0, 0, 0, 0], 0, 'num_images must be positive, but got 0'),
])
def test_frequencies_that_do_not_fit(counts, num_images, match):
    loss = GOLLoss(num_classes=C)
    with pytest.raises(ValueError, match=match):
        loss.set_class_frequency(counts, num_images)
    assert not loss.has_frequency and not loss.class_counts.any()


@pytest.mark.parametrize('kwargs, match', [
    (dict(num_classes=0), 'integer of at least 1, but got 0'),
    (dict(rare_threshold=2), r'frequency in \[0, 1\], but got 2'),
    (dict(activation='relu'), "activation must be one of.*got 'relu'"),
    (dict(reduction='avg'), "reduction must be one of.*got 'avg'"),
    (dict(clamp=(1, )), 'clamp must be two numbers'),
])
def test_constructor_errors(kwargs, match):
    with pytest.raises(ValueError, match=match):
        GOLLoss(**{'num_classes': C, **kwargs})


def test_forward_errors():
    loss = make()
    with pytest.raises(ValueError, match=r'shape \(5, 5\); it takes no backg'):
        loss(torch.zeros(5, 5), NONE_RARE)
    with pytest.raises(ValueError, match=r'per sample, \(5,\), but got \(4,'):
        loss(scores_of(5), NONE_RARE, torch.ones(4))
    with pytest.raises(ValueError, match="reduction_override must be.*'max'"):
        loss(scores_of(5), NONE_RARE, reduction_override='max')
    with pytest.raises(ValueError, match="avg_factor goes with.*'mean'"):
        loss(scores_of(5), NONE_RARE, None, 3., 'sum')
    with pytest.raises(ValueError, match="one of.*but got 'max'"):
        weight_reduce_loss(torch.ones(2), reduction='max')


# --- mmdet's contract -------------------------------------------------------
def test_channels():
    assert make().get_cls_channels(C) == C
    with pytest.raises(
            ValueError, match='loss_cls has num_classes=4, but the box head '
            'has num_classes=80'):
        make().get_cls_channels(80)


def test_activation_appends_a_background_of_zeros():
    scores = torch.tensor([[-20., 0., 1., 20.]])
    out = make().get_activation(scores)
    torch.testing.assert_close(
        out, torch.tensor([[0., 0.367879, 0.692201, 1., 0.]]))
    assert out[0, 3] > 0.99999999 - 1e-7  # not clamped at 10
    out = make(activation='sigmoid').get_activation(scores)
    torch.testing.assert_close(
        out, torch.cat([scores.sigmoid(), torch.zeros(1, 1)], 1))
    assert make().get_activation(torch.zeros(0, C)).shape == (0, C + 1)


def test_accuracy_is_over_foreground():
    scores = torch.eye(4)[[0, 1, 2, 3, 0]]
    labels = torch.tensor([0, 1, 3, BACKGROUND, -100])
    accuracy = make().get_accuracy(scores, labels)
    torch.testing.assert_close(
        accuracy, dict(acc_classes=torch.tensor(200 / 3)))
    assert make().get_accuracy(scores, NO_FOREGROUND)['acc_classes'] == 0


def test_it_drives_mmdets_box_head():
    pytest.importorskip('mmdet')
    from mmdet.registry import MODELS as MMDET_MODELS
    head = MMDET_MODELS.build(
        dict(
            type='Shared2FCBBoxHead',
            in_channels=2,
            fc_out_channels=8,
            roi_feat_size=1,
            num_classes=C,
            loss_cls=dict(type='apa_mm.GOLLoss', num_classes=C)))
    assert head.fc_cls.out_features == C
    head.loss_cls.set_class_frequency(COUNTS, NUM_IMAGES)
    cls_score, bbox_pred = head(torch.randn(5, 2, 1, 1))
    losses = head.loss(cls_score, bbox_pred, torch.rand(5, 5), NONE_RARE,
                       torch.ones(5), torch.zeros(5, 4), torch.zeros(5, 4))
    torch.testing.assert_close(
        losses['loss_cls'],
        plain(cls_score.detach(), NONE_RARE, False).mean(),
        check_dtype=False)
    assert 0 <= losses['acc_classes'] <= 100
    losses['loss_cls'].backward()
    assert head.fc_cls.weight.grad.any()


def test_it_is_registered():
    loss = MODELS.build(dict(type='apa_mm.GOLLoss', num_classes=C))
    assert isinstance(loss, GOLLoss)
    assert "num_classes=4, rare_threshold=0.0011, activation='gumbel'" in repr(
        loss)


# --- two processes ----------------------------------------------------------
class _OHEMHead(nn.Module):
    """As mmdet's OHEM: the loss is called to choose RoIs, where it must."""

    def __init__(self):
        super().__init__()
        self.fc_cls = nn.Linear(8, C)
        self.loss_cls = make()

    def forward(self, features, labels):
        scores = self.fc_cls(features)
        if len(labels) > 100:
            with torch.no_grad():
                hard = self.loss_cls(
                    scores, labels, reduction_override='none').topk(100)
            scores, labels = scores[hard.indices], labels[hard.indices]
        # mmdet's box head does not call its loss without RoIs.
        return self.loss_cls(scores, labels) if len(labels) else scores.sum()


def _train_two_ranks(rank, folder):
    torch.manual_seed(0)
    net = nn.parallel.DistributedDataParallel(_OHEMHead())
    for number in ((300, 10), (50, 300), (0, 300), (300, 0), (10, 10)):
        n = number[rank]
        labels = torch.full((n, ), BACKGROUND)
        # Foreground: rank 0 all rare, rank 1 none.
        labels[:2] = torch.tensor([1, 3] if rank == 0 else [0, 2])[:n]
        net(torch.randn(n, 8), labels).backward()
    torch.manual_seed(0)
    x = torch.zeros(200, C, requires_grad=True)
    labels = torch.full((200, ), BACKGROUND)
    labels[:2] = torch.tensor([1, 3] if rank == 0 else [0, 2])
    make()(x, labels).backward()
    kept = (x.grad[2:, [1, 3]] > 0).float().mean()
    gathered = [torch.zeros(()) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, kept)
    if rank == 0:
        torch.save(torch.stack(gathered), folder / 'shares.pt')


def test_ranks_call_the_loss_unequally_often(tmp_path):
    """The rare ratio is that of the rank's own RoIs, so none waits."""
    run_two(_train_two_ranks, tmp_path)
    assert torch.load(tmp_path / 'shares.pt').tolist() == [1, 0]
