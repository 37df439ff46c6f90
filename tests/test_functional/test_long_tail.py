"""Tests of the class-count formulas against typed numbers and numpy."""
import math

import numpy as np
import pytest
import torch

from apa_mm.functional.long_tail import (LOGIT_OFFSETS,
                                         effective_number_weights,
                                         inverse_frequency_weights, log_prior,
                                         logit_offset)

COUNTS = (100, 10, 5)
# Six decimals, computed by the authors' code for the counts above.
VECTOR = dict(
    raw=(.139762, 2.442347, 3.135494),
    smooth=(1.138470, 3.355695, 3.961831),
    rel=(-1.897120, 2.351375, 3.091043),
    normit=(-1.124338, 1.359737, 1.711675),
    gombit=(-.711420, 2.397206, 3.113351),
    base2=(.201633, 3.523562, 4.523562),
    base10=(.060698, 1.060698, 1.361728))


@pytest.mark.parametrize('dtype', [torch.int64, torch.float32, torch.float64])
@pytest.mark.parametrize('variant', LOGIT_OFFSETS)
def test_offsets_equal_the_test_vector(variant, dtype):
    offset = logit_offset(torch.tensor(COUNTS, dtype=dtype), variant)
    want = torch.tensor(VECTOR[variant], dtype=torch.float64)
    torch.testing.assert_close(offset.double(), want, rtol=0, atol=2e-6)
    assert offset.dtype == (
        torch.float64 if dtype == torch.float64 else torch.float32)


def test_the_vector_covers_every_variant():
    assert set(VECTOR) == set(LOGIT_OFFSETS)


@pytest.mark.parametrize('variant', LOGIT_OFFSETS)
def test_offsets_of_a_large_set_are_accurate_in_float32(variant):
    counts = torch.tensor([1280] * 80 + [5] * 20 + [1])
    got = logit_offset(counts, variant).double()
    want = logit_offset(counts.double(), variant)
    torch.testing.assert_close(got, want, rtol=2e-6, atol=2e-6)


def test_raw_undoes_the_prior_exactly():
    # Bayes: p(c|x) ~ p(x|c) n_c; a balanced test set has p(c|x) ~ p(x|c).
    likelihood = np.array([.2, .5, .9])
    biased = likelihood * COUNTS / np.dot(likelihood, COUNTS)
    logits = torch.tensor(np.log(biased))
    offset = logit_offset(torch.tensor(COUNTS, dtype=torch.float64))
    got = (logits + offset).softmax(0).numpy()
    np.testing.assert_allclose(got, likelihood / likelihood.sum())


def test_smooth_is_finite_for_a_class_without_images():
    counts = torch.tensor([3, 0])
    assert logit_offset(counts, 'smooth')[1].item() == pytest.approx(
        math.log(4) + 1)
    assert logit_offset(counts, 'raw')[1].item() == math.inf


def test_log_prior():
    got = log_prior(torch.tensor(COUNTS, dtype=torch.float64))
    np.testing.assert_allclose(got, np.log(np.array(COUNTS) / 115))


def test_effective_number_weights_follow_the_formula():
    counts = np.array([1280, 100, 5, 1])
    for beta in (0., .9, .9999):
        number = (1 - beta**counts) / (1 - beta)
        want = (1 / number) / (1 / number).sum() * 4
        got = effective_number_weights(torch.tensor(counts), beta)
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_effective_number_weights_keep_their_digits_in_float32():
    counts = torch.tensor([5000, 3, 1])
    got = effective_number_weights(counts, .999999).double()
    want = effective_number_weights(counts.double(), .999999)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


def test_inverse_frequency_weights():
    got = inverse_frequency_weights(torch.tensor(COUNTS))
    np.testing.assert_allclose(got, [1.15, 11.5, 23.], rtol=1e-6)
    assert (got * torch.tensor(COUNTS) / 115).sum().item() == pytest.approx(3)


@pytest.mark.parametrize('call, match', [
    (lambda: logit_offset(torch.ones(3), 'log'),
     "variant must be one of.*'raw', 'smooth'.*but got 'log'"),
    (lambda: logit_offset(torch.ones(3, 1)), r'got shape \(3, 1\)'),
    (lambda: effective_number_weights(torch.ones(3), 1.),
     r'beta must be in \[0, 1\), but got 1.0'),
])
def test_bad_arguments(call, match):
    with pytest.raises(ValueError, match=match):
        call()
