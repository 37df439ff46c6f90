"""Batch statistics of the compiled form against float64."""
import pytest
import torch

from apa_mm.kernels import native, native_fused


@pytest.mark.skipif(
    native.library() is None, reason='no C++ compiler on this machine')
def test_statistics_of_values_far_from_zero():
    x = torch.randn(4, 3, 30, 30) + 1e4
    mean, invstd, _ = native_fused.batch_statistics(
        x, torch.zeros(3), torch.ones(3), 1e-5, 0.1)
    want = x.double()
    torch.testing.assert_close(
        mean.double(), want.mean((0, 2, 3)), rtol=1e-7, atol=0)
    torch.testing.assert_close(
        invstd.double(), (want.var((0, 2, 3), correction=0) + 1e-5).rsqrt(),
        rtol=1e-6, atol=0)
