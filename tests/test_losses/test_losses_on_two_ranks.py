"""Losses of detectors in two processes, against loops over all RoIs."""
import pytest
import torch
from support.two_processes import WORLD_SIZE, run_two

from apa_mm.losses import GOLLoss, SampledSigmoidLoss

pytest.importorskip('mmdet')
C, STEPS = 4, 3


def batch(rank, step):
    """Return scores, labels and weights of a rank, of unequal numbers."""
    draw = torch.Generator().manual_seed(10 * rank + step)
    size = 5 + 3 * rank
    return (torch.randn(size, C + 1, generator=draw, dtype=torch.float64),
            torch.randint(0, C + 1, (size, ), generator=draw),
            torch.rand(size, generator=draw))


def train(rank, folder):
    """Note what each rank sees; only rank 0 calls the other two losses."""
    from apa_mm.det.eqlv2 import EQLV2Loss
    if rank == 0:
        scores, labels, _ = batch(0, 0)
        for loss in (SampledSigmoidLoss(C, num_sampled=2),
                     GOLLoss(C, unverified_only=True)):
            loss.set_class_frequency([500, 1, 40, 1], 1000)
            loss.set_verified([[0]], [len(labels)])
            loss(scores[:, :C], labels)
    loss, values = EQLV2Loss(num_classes=C), []
    for step in range(STEPS):
        scores, labels, weight = batch(rank, step)
        values.append(loss(scores.float(), labels, weight, avg_factor=2.))
    torch.save(dict(values=values, state=loss.state_dict()),
               folder / f'{rank}.pt')


def slow(alpha=4., gamma=12., mu=0.8):
    """Return the losses of each rank and the statistics, equal on both."""
    positive, negative, ratio = [0.] * C, [0.] * C, [100.] * C
    values = [[] for _ in range(WORLD_SIZE)]
    for step in range(STEPS):
        of_negative = [float(torch.sigmoid(torch.tensor(gamma * (r - mu))))
                       for r in ratio] + [1.]
        for rank in range(WORLD_SIZE):
            total = 0.
            for row, label, weight in zip(*batch(rank, step), strict=True):
                for j, p in enumerate(torch.sigmoid(row).tolist()):
                    hit = j == label
                    factor = float(weight) * (
                        1 + alpha * (1 - of_negative[j]) if hit
                        else of_negative[j])
                    error = 1 - p if hit else p
                    total -= factor * float(
                        torch.log1p(torch.tensor(-error)))
                    if j < C and hit:
                        positive[j] += factor * error
                    elif j < C:
                        negative[j] += factor * error
            values[rank].append(total / 2)
        ratio = [a / b for a, b in zip(positive, negative, strict=True)]
    return values, dict(pos_grad=positive, neg_grad=negative, pos_neg=ratio)


def test_statistics_are_those_of_all_ranks(tmp_path):
    """And no collective call comes of a loss that one rank alone computes."""
    run_two(train, tmp_path)
    values, state = slow()
    for rank in range(WORLD_SIZE):
        found = torch.load(tmp_path / f'{rank}.pt', weights_only=True)
        torch.testing.assert_close(
            torch.stack(found['values']), torch.tensor(values[rank]),
            rtol=1e-5, atol=1e-6)
        for name, value in state.items():
            torch.testing.assert_close(
                found['state'][name], torch.tensor(value), rtol=1e-5,
                atol=1e-6)
