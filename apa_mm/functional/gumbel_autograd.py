"""Formulas and autograd Functions behind ``gumbel.py``.

Shapes: N RoIs, C classes, B rows of one chunk. With ``e = exp(-s)`` and
``r = 1 / (exp(e) - 1)`` the Gumbel probability is ``p = exp(-e)`` and::

    -log(p)     = e             d/ds = -e
    -log(1 - p) = log(1 + r)    d/ds = e * r

``r`` keeps its relative precision at both ends, where ``1 - p`` cancels (p
near 1) or ``log(1 - p)`` rounds to 0 (p near 0).
"""
import math
from typing import NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import gumbel_native

__all__ = ['GOLFunction', 'GOLSettings', 'GumbelBCEFunction']

# Elements per chunk: on a CPU a multiple of the threads, within limits. Larger
# buffers cost page faults and leave the cache; with smaller ones the threads
# wait for each other more often, which hurts where cores are shared.
CPU_CHUNK = 2**19
MAX_CHUNK = 2**22

# A draw is one byte of a random int64, so that eight negatives share the cost
# of one random number.
DRAWS = 2**8


class GOLSettings(NamedTuple):
    """What does not change from chunk to chunk, and is no tensor."""
    activation: str
    clamp: Tuple[float, float]


def widen(x: Tensor) -> Tensor:
    """Return the tensor in the dtype to compute in: float32 or float64."""
    return x if x.dtype == torch.float64 else x.float()


def gumbel_terms(score: Tensor) -> Tuple[Tensor, Tensor]:
    """Return ``e`` and ``r`` of the module's header for clamped scores."""
    e = torch.exp(-score)
    return e, torch.expm1(e).reciprocal_()


class GumbelBCEFunction(torch.autograd.Function):
    """Element-wise Gumbel BCE that keeps nothing but its inputs."""

    @staticmethod
    def forward(ctx, logits: Tensor, target: Tensor, low: float,
                high: float) -> Tensor:
        """Return the losses, float32 or float64."""
        ctx.save_for_backward(logits, target)
        ctx.range = low, high
        e, r = gumbel_terms(widen(logits).clamp(low, high))
        return torch.lerp(r.log1p_(), e, widen(target).to(e.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        """Return the gradients of logits and target."""
        logits, target = ctx.saved_tensors
        wide = widen(logits)
        score = wide.clamp(*ctx.range)
        e, r = gumbel_terms(score)
        grad_logits = grad_target = None
        if ctx.needs_input_grad[0]:
            slope = torch.lerp(e * r, -e, widen(target).to(e.dtype))
            slope.masked_fill_(score != wide, 0)
            grad_logits = (slope * grad).to(logits.dtype)
        if ctx.needs_input_grad[1]:
            grad_target = (grad * (e - r.log1p_())).to(target.dtype)
        return grad_logits, grad_target, None, None


class GOLFunction(torch.autograd.Function):
    """Loss per RoI that keeps only its finished gradient."""

    @staticmethod
    def forward(ctx, cls_score: Tensor, labels: Tensor, positives: Tensor,
                ratios: Optional[Tensor], rare: Optional[Tensor],
                settings: GOLSettings) -> Tensor:
        """Return the losses.

        Args:
            ctx (FunctionCtx): What autograd keeps.
            cls_score (Tensor): Scores, (N, C), any floating dtype.
            labels (Tensor): Class of a foreground row, else 0, int64, (N, 1).
            positives (Tensor): True on foreground rows, bool, (N, 1).
            ratios (Tensor, optional): Probability to keep the negative of a
                rare class, float32, (N, 1).
            rare (Tensor, optional): True for rare classes, bool, (C,).
            settings (GOLSettings): Activation and range of the scores.

        Returns:
            Tensor: (N,), float32, or float64 for float64 scores.
        """
        ctx.dtype = cls_score.dtype
        if gumbel_native.usable(cls_score, settings.activation):
            losses, grad = gumbel_native.gol_forward(cls_score, labels,
                                                     positives, ratios, rare,
                                                     settings.clamp)
            if ctx.needs_input_grad[0]:
                ctx.save_for_backward(grad)
            return losses
        negatives, positive = FORMULAS[settings.activation]
        losses = cls_score.new_empty(
            len(cls_score),
            dtype=torch.promote_types(cls_score.dtype, torch.float32))
        grad = None
        if ctx.needs_input_grad[0]:
            grad = new_gradient(cls_score)
            ctx.save_for_backward(grad)
        borders = open_borders(settings.clamp, losses.dtype)
        space = Workspace(cls_score, labels, positives, ratios, rare)
        for rows in space.chunks:
            score = widen(cls_score[rows])
            keep = space.keep(rows)
            clipped = torch.clamp(
                score, *settings.clamp, out=space.get(1, score))
            slopes = negatives(clipped, keep, space.get(2, score),
                               losses[rows])
            if grad is not None:
                write_slopes(slopes, score, borders, grad[rows])
        target = widen(cls_score.gather(1, labels))  # (N, 1)
        clipped = target.clamp(*settings.clamp)
        loss, slope = positive(clipped)
        losses += loss.masked_fill(~positives, 0).squeeze(1)
        if grad is not None:
            slope.masked_fill_(clipped != target, 0)
            others = grad.gather(1, labels)
            slope = torch.where(positives, slope.to(grad.dtype), others)
            grad.scatter_(1, labels, slope)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_losses: Tensor) -> Tuple[Optional[Tensor], ...]:
        """Return the gradient of the scores."""
        grad, = ctx.saved_tensors
        out = torch.empty_like(grad, dtype=ctx.dtype)
        torch.mul(grad, grad_losses.unsqueeze(1), out=out)
        return out, None, None, None, None, None


def new_gradient(cls_score: Tensor) -> Tensor:
    """Return an empty tensor for the gradient that is kept, (N, C).

    It is float32 for float16 scores: float16 would flush the small gradients
    of background rows to 0 before a loss scale could save them.
    """
    dtype = cls_score.dtype
    return torch.empty(
        cls_score.shape,
        dtype=torch.float32 if dtype == torch.float16 else dtype,
        device=cls_score.device)


class Workspace:
    """Rows per chunk, and buffers that every chunk uses again.

    Args:
        cls_score (Tensor): Scores, (N, C).
        labels (Tensor): Class of a foreground row, else 0, int64, (N, 1).
        positives (Tensor): True on foreground rows, bool, (N, 1).
        ratios (Tensor, optional): Probability to keep the negative of a rare
            class, float32, (N, 1).
        rare (Tensor, optional): True for rare classes, bool, (C,).
    """

    def __init__(self, cls_score: Tensor, labels: Tensor, positives: Tensor,
                 ratios: Optional[Tensor], rare: Optional[Tensor]) -> None:
        num_rows, num_classes = cls_score.shape
        size = MAX_CHUNK
        if cls_score.device.type == 'cpu':
            size = min(size, CPU_CHUNK * torch.get_num_threads())
        step = min(max(size // max(num_classes, 1), 1), max(num_rows, 1))
        self.chunks = [
            slice(start, min(start + step, num_rows))
            for start in range(0, num_rows, step)
        ]
        dtype = torch.promote_types(cls_score.dtype, torch.float32)
        self.buffers = cls_score.new_empty((3, step, num_classes), dtype=dtype)
        self.labels = labels
        self.first = (~positives).to(dtype)  # what scatter_ writes to keep
        self.columns = None
        if rare is not None and ratios is not None:
            self.columns = (~rare).to(dtype) * DRAWS
            # Rounded up or down by chance, row by row: the probability of an
            # element is its ratio exactly, not a multiple of 1 / 256.
            jitter = torch.rand_like(ratios)
            self.steps = (ratios * DRAWS + jitter).floor_().to(dtype)
            self.draws = torch.empty(
                -(-step * num_classes // 8),
                dtype=torch.int64,
                device=cls_score.device)
            drawn = torch.rand_like(ratios) < ratios
            self.first.mul_(drawn | ~rare[0])

    def get(self, index: int, like: Tensor) -> Tensor:
        """Return a buffer with the shape of a chunk."""
        return self.buffers[index, :len(like)]

    def keep(self, rows: slice) -> Tensor:
        """Return 1.0, or 0.0 where a negative is dropped, (B, C).

        With a draw v in 0..255 an element is kept if ``v < steps + columns``,
        where columns is 256 for classes that are not rare. All are integers,
        so clamping the difference gives 0 or 1, at a fraction of the time
        that ``torch.rand`` and boolean masks take.
        """
        keep = self.buffers[0, :rows.stop - rows.start]
        if self.columns is None:
            keep.fill_(1)
        else:
            draws = self.draws.random_(-2**63, None).view(torch.uint8)
            draws = draws[:keep.numel()].view(keep.shape)
            torch.sub(self.columns, draws, out=keep)
            keep.add_(self.steps[rows]).clamp_(0, 1)
        # The target's own column is no negative. Rows without a target get
        # their column 0 overwritten, with a draw made beforehand.
        return keep.scatter_(1, self.labels[rows], self.first[rows])


def write_slopes(slopes: Tensor, score: Tensor,
                 borders: Optional[Tuple[float, float]], out: Tensor) -> None:
    """Copy the slopes, 0 where not borders[0] < score < borders[1]."""
    if borders is None:
        out.copy_(slopes)
        return
    inside = torch.ops.aten.hardtanh_backward
    if out.dtype == slopes.dtype:
        inside.grad_input(slopes, score, *borders, grad_input=out)
    else:
        out.copy_(inside(slopes, score, *borders))


def open_borders(clamp: Tuple[float, float],
                 dtype: torch.dtype) -> Optional[Tuple[float, float]]:
    """Return the numbers next to the range; None if it has no limits.

    A score on the limit itself passes its gradient, as in ``torch.clamp``.
    """
    infinite = torch.tensor([-math.inf, math.inf], dtype=dtype)
    limits = torch.tensor(clamp, dtype=dtype)
    if limits.equal(infinite):
        return None
    return tuple(torch.nextafter(limits, infinite).tolist())


def gumbel_negatives(score: Tensor, keep: Tensor, space: Tensor,
                     losses: Tensor) -> Tensor:
    """Write row sums of ``-log(1 - p)``, (B,); return its slopes, (B, C)."""
    e = score.neg_().exp_()
    r = torch.div(keep, torch.expm1(e, out=space), out=space)
    torch.sum(torch.log1p(r, out=keep), 1, out=losses)
    return r.mul_(e)


def gumbel_positive(score: Tensor) -> Tuple[Tensor, Tensor]:
    """Return ``-log(p)`` and its slope, (B, 1)."""
    e = torch.exp(-score)
    return e, -e


def sigmoid_negatives(score: Tensor, keep: Tensor, space: Tensor,
                      losses: Tensor) -> Tensor:
    """Write row sums of ``softplus(s)``, (B,); return its slopes, (B, C)."""
    slopes = torch.sigmoid(score, out=space).mul_(keep)
    # softplus(s) = -log(sigmoid(-s)), without the switch to s of F.softplus.
    torch.sum(F.logsigmoid(score.neg_()).mul_(keep).neg_(), 1, out=losses)
    return slopes


def sigmoid_positive(score: Tensor) -> Tuple[Tensor, Tensor]:
    """Return ``softplus(-s)`` and its slope, (B, 1)."""
    return -F.logsigmoid(score), -torch.sigmoid(-score)


FORMULAS = {
    'gumbel': (gumbel_negatives, gumbel_positive),
    'sigmoid': (sigmoid_negatives, sigmoid_positive),
}
