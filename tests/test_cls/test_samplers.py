"""ClassBalancedSampler and the repeated augmentation of MMPretrain."""
from collections import Counter

import pytest
from mmengine.config import Config
from mmengine.registry import DATA_SAMPLERS
from support.configs import ROOT

from apa_mm.cls.samplers import ClassBalancedSampler, class_balanced

SIZES = (50, 20, 7, 1)


class Labelled:
    """A data set of 78 samples, the label of each known."""

    def __init__(self, sizes=SIZES):
        self.labels = [c for c, n in enumerate(sizes) for _ in range(n)][::-1]

    def __len__(self):
        return len(self.labels)

    def get_gt_labels(self):
        return self.labels


DATA = Labelled()


def classes(indices):
    return Counter(DATA.labels[i] for i in indices)


def build(**kwargs):
    return DATA_SAMPLERS.build(
        dict(
            type='apa_mm.ClassBalancedSampler', dataset=DATA, seed=0,
            **kwargs))


@pytest.mark.parametrize('epoch_size, total', [
    ('dataset', 78), ('largest', 200), ('smallest', 4), (100, 100)])
def test_every_class_gets_the_same_share(epoch_size, total):
    sampler = build(epoch_size=epoch_size)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == total
    shares = classes(drawn)
    assert sum(shares.values()) == total
    assert {shares[c] for c in range(4)} <= {total // 4, -(-total // 4)}


def test_no_sample_comes_again_before_all_of_its_class_came():
    drawn = Counter(build(epoch_size='largest'))
    for label, size in enumerate(SIZES):
        times = [n for i, n in drawn.items() if DATA.labels[i] == label]
        assert len(times) == size
        assert max(times) - min(times) <= 1


def test_epochs_differ_and_repeat():
    sampler = build()
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first
    # Shuffled over the classes, too.
    assert len(classes(first[:20])) == 4


def test_ranks_share_an_epoch(monkeypatch):
    whole = list(build(epoch_size=80))
    parts = []
    for rank in range(2):
        monkeypatch.setattr(class_balanced, 'get_dist_info', lambda r=rank:
                            (r, 2))
        parts.append(list(build(epoch_size=79)))
        assert len(parts[-1]) == 40
    assert [i for pair in zip(*parts, strict=True) for i in pair] == whole


def test_a_label_set_with_gaps_and_wrapped_data_sets():
    class Wrapped:
        def __len__(self):
            return 4

        def get_cat_ids(self, index):
            return [[2], [2], [2], [5]][index]

    drawn = list(ClassBalancedSampler(Wrapped(), epoch_size=6, seed=0))
    assert Counter(drawn) == {0: 1, 1: 1, 2: 1, 3: 3}


@pytest.mark.parametrize('epoch_size', ['all', 0, -3])
def test_wrong_epoch_sizes(epoch_size):
    with pytest.raises(ValueError, match='dataset.*largest.*positive number'):
        build(epoch_size=epoch_size)


def test_a_data_set_without_labels():
    with pytest.raises(TypeError, match='list has neither get_gt_labels'):
        ClassBalancedSampler([1, 2])


def repeated(size, rank, ranks, monkeypatch):
    """Build the sampler of the iNaturalist recipe for a rank."""
    cfg = Config.fromfile(
        ROOT / 'configs/_base_/datasets/inat18_repeataug.py').train_dataloader
    monkeypatch.setattr('mmpretrain.datasets.samplers.repeat_aug.'
                        'get_dist_info', lambda: (rank, ranks))
    sampler = DATA_SAMPLERS.build(
        dict(cfg.sampler, dataset=range(size), seed=0))
    return cfg, sampler


def test_every_image_is_drawn_four_times(monkeypatch):
    _, sampler = repeated(78, 0, 1, monkeypatch)
    drawn = Counter(sampler)
    assert sum(drawn.values()) == len(sampler) == 78
    assert sorted(drawn.values()) == [2] + [4] * 19


def test_an_epoch_is_cut_to_a_multiple_of_256_images(monkeypatch):
    cfg = repeated(1, 0, 1, monkeypatch)[0]
    each = [len(repeated(cfg.dataset.num_images, rank, 4, monkeypatch)[1])
            for rank in range(4)]
    assert each == [109376] * 4 and sum(each) == 1709 * 256
    # What is drawn is used.
    assert not cfg.get('drop_last', False)


def test_a_set_smaller_than_the_ranks_gives_each_an_image(monkeypatch):
    assert {len(repeated(3, rank, 8, monkeypatch)[1])
            for rank in range(8)} == {1}


def test_the_ranks_draw_the_copies_of_one_image(monkeypatch):
    drawn = [list(repeated(1000, rank, 2, monkeypatch)[1]) for rank in (0, 1)]
    assert drawn[0] == drawn[1] and len(drawn[0]) == 384
    assert set(Counter(drawn[0]).values()) == {2}
