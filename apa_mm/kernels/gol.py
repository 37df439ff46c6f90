"""The Gumbel Optimized Loss: formulas, and forms that keep one tensor.

Shapes: N RoIs, C classes. With ``e = exp(-s)`` the Gumbel probability is
``p = exp(-e)``, its losses are ``-log(p) = e`` and ``-log(1 - p)``.
"""
from ctypes import c_float, c_int64, c_uint64
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from . import native
from .activation import choose_backend, refuse_second_order, is_plain
from .formulas import widen

#: Elements per pass of the eager form, whose temporary tensors have that size.
CHUNK = 2**21
# Where exp(-s) is larger, -log(1 - p) needs p rather than 1 - p.
SMALL_PROBABILITY = 1.0


def gumbel_negative(score: Tensor) -> Tensor:
    """Return ``-log(1 - p)``, exact where p is near 0 and near 1."""
    e = torch.exp(-score)
    # The form that is not taken stays finite, so that its gradient is 0.
    low = -torch.log1p(-torch.exp(-e.clamp(min=SMALL_PROBABILITY)))
    high = -torch.log(-torch.expm1(-e.clamp(max=SMALL_PROBABILITY)))
    return torch.where(e > SMALL_PROBABILITY, low, high)


#: Losses of a class that is not, and that is, the target, by activation.
LOSSES: Dict[str, Tuple[Callable, Callable]] = {
    'gumbel': (gumbel_negative, lambda s: torch.exp(-s)),
    # -log(sigmoid(-s)) has no switch to s as F.softplus has.
    'sigmoid': (lambda s: -F.logsigmoid(-s), lambda s: -F.logsigmoid(s)),
}


class GOLSettings(NamedTuple):
    """What is the same for all RoIs."""

    activation: str
    clamp: Tuple[float, float]
    rare: Optional[Tensor]  # bool, (C,)


def gol(cls_score: Tensor, labels: Tensor, positives: Tensor,
        ratios: Optional[Tensor], settings: GOLSettings) -> Tensor:
    """Return the loss of every RoI, (N,); scores are (N, C), others (N, 1).

    ``labels`` is 0 where ``positives`` is false (no foreground); ``ratios``,
    float32, is the probability to keep the negative of a rare class.
    """
    form = _GOL.apply if is_plain(cls_score) else _losses
    return form(cls_score, labels, positives, ratios, settings)


def _losses(cls_score: Tensor, labels: Tensor, positives: Tensor,
            ratios: Optional[Tensor], settings: GOLSettings) -> Tensor:
    """Return the losses by plain torch operations."""
    negative, positive = LOSSES[settings.activation]
    score = widen(cls_score).clamp(*settings.clamp)
    columns = torch.arange(score.shape[1], device=score.device)
    drop = (columns == labels) & positives
    if ratios is not None and settings.rare is not None:
        draws = torch.rand_like(score, dtype=torch.float32)
        drop = drop | (settings.rare & (draws >= ratios))
    losses = negative(score).masked_fill(drop, 0).sum(1)
    target = positive(score.gather(1, labels)).masked_fill(~positives, 0)
    return losses + target.squeeze(1)


class _GOL(torch.autograd.Function):
    """Keeps only its finished gradient."""

    @staticmethod
    def forward(ctx: Any, cls_score: Tensor, labels: Tensor,
                positives: Tensor, ratios: Optional[Tensor],
                settings: GOLSettings) -> Tensor:
        ctx.dtype = cls_score.dtype
        compiled = (settings.activation == 'gumbel' and cls_score.numel()
                    and choose_backend(cls_score) == 'native')
        form = _native if compiled else _in_chunks
        losses, grad = form(cls_score, labels, positives, ratios, settings,
                            ctx.needs_input_grad[0])
        if ctx.needs_input_grad[0]:
            # Not float16, which would flush the small gradients of background
            # rows to 0 before a loss scale could save them.
            if ctx.dtype == torch.bfloat16:
                grad = grad.to(ctx.dtype)
            ctx.save_for_backward(grad)
        return losses

    @staticmethod
    def backward(ctx: Any, grad_losses: Tensor) -> tuple:
        refuse_second_order('use torch.func (jacrev, hessian) for the loss')
        grad, = ctx.saved_tensors
        out = torch.empty_like(grad, dtype=ctx.dtype)
        torch.mul(grad, grad_losses.unsqueeze(1), out=out)
        return out, None, None, None, None


def _in_chunks(cls_score: Tensor, labels: Tensor, positives: Tensor,
               ratios: Optional[Tensor], settings: GOLSettings,
               with_grad: bool) -> Tuple[Tensor, Optional[Tensor]]:
    """Return the losses and, if asked for, the gradient of their sum."""
    rows = max(CHUNK // max(cls_score.shape[1], 1), 1)
    losses, grads = [], []
    for start in range(0, max(len(cls_score), 1), rows):
        part = slice(start, start + rows)
        score = widen(cls_score.detach()[part])
        # A user's hooks are to see what is kept, which this graph is not.
        with torch.set_grad_enabled(with_grad), saved_tensors_hooks(
                lambda t: t, lambda t: t):
            loss = _losses(score.requires_grad_(with_grad), labels[part],
                           positives[part],
                           None if ratios is None else ratios[part], settings)
        losses.append(loss.detach())
        if with_grad:
            grads += torch.autograd.grad(loss, score, torch.ones_like(loss))
    return torch.cat(losses), torch.cat(grads) if with_grad else None


def _native(cls_score: Tensor, labels: Tensor, positives: Tensor,
            ratios: Optional[Tensor], settings: GOLSettings,
            with_grad: bool) -> Tuple[Tensor, Tensor]:
    """Return losses and gradient of ``csrc/gol_cpu.cpp``.

    A draw is a hash of a seed from torch's generator, the row and the column.
    """
    scores = cls_score.detach().float().contiguous()
    rows, columns = scores.shape
    scores.gather(1, labels)  # raises for labels out of range
    common, seed = scores.new_ones(columns), 0
    if settings.rare is None or ratios is None:
        ratios = scores.new_zeros(rows)
    else:
        common -= settings.rare.to(common.dtype)
        seed = int(torch.randint(2**63 - 1, (), device='cpu'))
    targets = torch.where(positives, labels, -1)
    grad, losses = torch.empty_like(scores), scores.new_empty(rows)
    low, high = settings.clamp
    native.library().gol_forward(
        *map(native.pointer, (scores, grad, losses, targets.contiguous(),
                              common, ratios.contiguous())), c_uint64(seed),
        c_int64(rows), c_int64(columns), c_float(low), c_float(high),
        native.threads(scores))
    return losses, grad
