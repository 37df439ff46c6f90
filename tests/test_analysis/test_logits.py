"""Fits of logits: samples of known laws, scipy's own distance."""
import pickle

import numpy as np
import pytest
from scipy import stats

from apa_mm.analysis import AnalysisError, fit_logits
from apa_mm.analysis.reservoir import ClassLogits, Reservoir


@pytest.mark.parametrize('law, nearer_gumbel, skewness', [
    (stats.logistic, False, 0.0),
    (stats.gumbel_r, True, 1.1395470994046486),
])
def test_quantiles_of_a_law_are_nearer_to_it(law, nearer_gumbel, skewness):
    # Quantiles instead of draws: the distance is 1 / (2 n) but for the fit.
    values = law.ppf((np.arange(4000) + 0.5) / 4000, loc=-3, scale=2)
    fit = fit_logits(values)
    assert fit.nearer_gumbel is nearer_gumbel
    near, far = sorted([fit.ks_logistic, fit.ks_gumbel])
    assert near < 1e-3 and far > 0.02
    location, scale = fit.gumbel if nearer_gumbel else fit.logistic
    assert location == pytest.approx(-3, abs=0.01)
    assert scale == pytest.approx(2, abs=0.01)
    assert fit.mean == pytest.approx(law.mean(loc=-3, scale=2), abs=0.01)
    assert fit.std == pytest.approx(law.std(loc=-3, scale=2), rel=0.01)
    assert fit.skewness == pytest.approx(skewness, abs=0.05)


def test_mirrored_gumbel_is_not_gumbel():
    values = -stats.gumbel_r.ppf((np.arange(500) + 0.5) / 500)
    assert not fit_logits(values).nearer_gumbel


def test_the_distance_is_that_of_the_definition():
    values = np.array([-1.0, 0.5, 3.0])
    fit = fit_logits(values)
    law = stats.logistic(*fit.logistic).cdf(values)
    steps = np.arange(4) / 3
    assert fit.ks_logistic == pytest.approx(
        max((steps[1:] - law).max(), (law - steps[:-1]).max()))


@pytest.mark.parametrize('values, message', [
    ([1.0, np.nan, np.inf], '2 of 3 logits are NaN or infinite'),
    ([1.0], 'at least 2 different logits, but got 1'),
    ([3.0, 3.0], 'got 2 of value'),
    ([], 'got 0'),
])
def test_logits_that_cannot_be_fitted(values, message):
    with pytest.raises(AnalysisError, match=message):
        fit_logits(np.array(values))


def test_a_reservoir_keeps_all_while_there_is_room():
    kept = Reservoir(10, 2)
    rows = np.arange(14, dtype=np.float32).reshape(7, 2)
    for part in np.split(rows, [3, 5]):
        kept.update(part)
    assert np.array_equal(kept.rows, rows) and kept.seen == 7


def test_a_reservoir_is_even_over_the_stream():
    counts = np.zeros(100)
    for seed in range(300):
        kept = Reservoir(10, 1, seed)
        for part in np.split(np.arange(100.)[:, None], [4, 37, 38]):
            kept.update(part)
        assert len(set(kept.rows.ravel())) == 10
        counts[kept.rows.ravel().astype(int)] += 1
    # Each is kept by a tenth of the 300, sigma 5.2.
    assert counts.sum() == 3000
    assert counts.min() > 10 and counts.max() < 55
    assert abs(counts[:50].sum() - 1500) < 150


def test_memory_does_not_grow_with_the_data():
    kept, sizes = Reservoir(50, 4), []
    for batch in range(100):
        kept.update(np.random.rand(16, 4))
        if batch in (9, 99):
            sizes.append(len(pickle.dumps(kept)))
    assert kept.seen == 1600
    assert abs(sizes[0] - sizes[1]) < 100


def test_no_capacity():
    with pytest.raises(AnalysisError, match='1 or more rows, but got 0'):
        Reservoir(0, 1)


def test_all_samples_and_own_samples():
    logits = np.arange(12, dtype=np.float32).reshape(4, 3)
    labels = np.array([1, -1, 1, 0])
    all_rows, own = ClassLogits(3, 'all'), ClassLogits(3, 'own')
    for store in (all_rows, own):
        store.update(logits[:2], labels[:2])
        store.update(logits[2:], labels[2:])
    assert all_rows.of(1).tolist() == [1, 4, 7, 10]
    assert own.of(1).tolist() == [1, 7]
    assert own.of(0).tolist() == [9] and own.of(2).tolist() == []
