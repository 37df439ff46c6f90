"""BatchNorm, attention, addition and AGLU run as one kernel.

The modules keep their names and state. A block asks :func:`can_fuse` once and
then takes one of two roads: it calls its modules, or the functions below.
"""
from typing import Iterable, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from apa_mm.kernels.activation import choose_backend, is_plain
from apa_mm.kernels.fused import (Unwritten, batch_norm, batch_norm_aglu,
                                  inference_norm_aglu, inference_residual_aglu,
                                  residual_aglu)
from apa_mm.kernels.native_fused import Affine, batch_statistics, usable

from .activation import AGLU
from .attention import ChannelAttention

def can_fuse(wanted: Optional[bool], x: Tensor,
             modules: Iterable[Optional[nn.Module]]) -> bool:
    """Return whether the modules may run as one kernel for this input.

    Args:
        wanted (bool, optional): False never fuses, True wherever the result
            is the same, None only where it was measured to be faster:
            float32 on the CPU, with the compiled form.
        x (Tensor): Input of the first module.
        modules (Iterable[nn.Module | None]): The modules whose calls would be
            replaced: BatchNorm2d (without gradients also the Identity that
            ``fuse_conv_bn`` leaves), AGLU, ChannelAttention or a Sequential
            around them; None is left out.

    It is False while tracing or compiling, for empty tensors and subclasses,
    within ``torch.func``'s transforms, if a module is of another type (SyncBN
    among them), has no affine parameters or running statistics, varies along
    another axis, or if it or all modules (a profiler's global hooks) carry a
    hook, which would not run.
    """
    if wanted is False or not is_plain(x) or x.dim() != 4 or not x.numel():
        return False  # an fx.Proxy is not plain, and has no dim
    if wanted is None and not (x.dtype == torch.float32 and x.is_contiguous()
                               and choose_backend(x) == 'native'):
        return False
    return not _has_hook(vars(torch_module), '_global') and all(
        _is_fusable(m) for m in modules if m is not None)


def may_overwrite(conv: nn.Module) -> bool:
    """Return whether what ``conv`` returned is read once: nobody watches."""
    return (type(conv) is nn.Conv2d and not torch.is_grad_enabled()
            and not _is_watched(conv)
            and not torch._C._len_torch_function_stack())


def _has_hook(settings: dict, prefix: str = '') -> bool:
    # Written out: it runs for every module of every block.
    return bool(settings[f'{prefix}_forward_hooks']
                or settings[f'{prefix}_forward_pre_hooks']
                or settings[f'{prefix}_backward_hooks']
                or settings[f'{prefix}_backward_pre_hooks'])


def _is_watched(module: nn.Module) -> bool:
    settings = module.__dict__  # libraries put wrappers there as 'forward'
    return 'forward' in settings or _has_hook(settings)


def _is_fusable(module: nn.Module) -> bool:
    if _is_watched(module):
        return False
    kind = type(module)
    if kind is nn.Identity:
        return not torch.is_grad_enabled()
    if kind is nn.BatchNorm2d:
        return module.affine and module.track_running_stats
    if kind is AGLU:
        return module.num_parameters == 1 or module.channel_dim == 1
    return kind is ChannelAttention or kind is nn.Sequential


def _count_batch(norm: nn.BatchNorm2d) -> float:
    """Count a batch; return its share in the running statistics."""
    norm.num_batches_tracked.add_(1)
    if norm.momentum is None:  # the average of all batches
        return 1.0 / float(norm.num_batches_tracked)
    return norm.momentum


def _fixed_statistics(norm: nn.BatchNorm2d) -> Tuple[Tensor, Tensor]:
    return norm.running_mean, torch.rsqrt(norm.running_var + norm.eps)


@torch.no_grad()
def _statistics(norm: nn.BatchNorm2d, x: Tensor) -> Tuple[Tensor, ...]:
    """Return mean and 1 / std for ``norm``; update the running ones.

    Where it is a by-product, the mean of every map less that of its channel
    (N, C) comes third.
    """
    if not norm.training:
        return _fixed_statistics(norm)
    count = x.numel() / x.shape[1]
    if count == 1:
        raise ValueError('Expected more than 1 value per channel when '
                         f'training, got input size {tuple(x.shape)}')
    factor = _count_batch(norm)
    running = norm.running_mean, norm.running_var
    if usable(x) and all(t.dtype == torch.float32 for t in running):
        return batch_statistics(x, *running, norm.eps, factor)
    var, mean = torch.var_mean(
        x.float() if x.dtype.itemsize < 4 else x, (0, 2, 3), correction=0)
    for old, new in zip(running, (mean, var * (count / (count - 1))),
                        strict=True):
        old.lerp_(new.to(old.dtype), factor)
    return mean, torch.rsqrt(var + norm.eps)


def fused_norm_act(norm: nn.Module,
                   act: AGLU,
                   x: Tensor,
                   inplace: bool = False) -> Tensor:
    """Return ``act(norm(x))`` and keep only ``x`` for the backward pass.

    ``x`` and the result are (N, C, H, W), ``norm`` a BatchNorm2d in either
    mode or an Identity; ``inplace`` allows to overwrite ``x``.
    """
    if not torch.is_grad_enabled() and not _uses_batch(norm):
        return inference_norm_aglu(
            _fixed_recipe(norm, x), inplace=inplace, **act.values(x))
    mean, invstd, *_ = _statistics(norm, x)
    return batch_norm_aglu(
        x,
        norm.weight,
        norm.bias,
        mean,
        invstd,
        batch_stats=norm.training,
        lambda_grad=act.lambda_grad,
        **act.values(x))


def fused_block_end(norm: nn.Module,
                    attention: Optional[ChannelAttention],
                    act: AGLU,
                    x: Tensor,
                    identity: Tensor,
                    shortcut_norm: Optional[nn.BatchNorm2d] = None,
                    inplace: bool = False) -> Tensor:
    """Return ``act(attention(norm(x)) + shortcut)``, keeping only inputs.

    ``identity`` (N, C, H, W), like ``x`` and the result, is the shortcut, or
    the input of ``shortcut_norm``, its last module. Other arguments as in
    :func:`fused_norm_act`.
    """
    if torch.is_grad_enabled() or _uses_batch(norm) or _uses_batch(
            shortcut_norm):
        main = _unwritten(norm, x, attention is not None)
        short = _unwritten(shortcut_norm, identity, False)
        return residual_aglu(main, _gates(attention, x, main.pooled), short,
                             lambda_grad=act.lambda_grad, **act.values(x))
    main, pooled = _fixed_recipe(norm, x), None
    if attention is not None:
        # With fixed statistics the mean of norm(x) is that of x, mapped.
        pooled = x.mean(dim=(2, 3))
        if main.scale is not None:
            pooled = (pooled * main.scale + main.shift).to(x.dtype)
    return inference_residual_aglu(
        main, _gates(attention, x, pooled),
        _fixed_recipe(shortcut_norm, identity), inplace=inplace,
        **act.values(x))


def _gates(attention: Optional[ChannelAttention], x: Tensor,
           pooled: Optional[Tensor]) -> Tensor:
    if attention is None:
        return x.new_ones(x.shape[:2])
    return attention.gate(attention.excite(pooled))


def _uses_batch(norm: Optional[nn.Module]) -> bool:
    return type(norm) is nn.BatchNorm2d and norm.training


def _fixed_recipe(norm: Optional[nn.Module], x: Tensor) -> Affine:
    if type(norm) is not nn.BatchNorm2d:  # none, or folded into what gave x
        return Affine(x)
    return Affine.of(x, norm.weight, norm.bias, *_fixed_statistics(norm))


def _unwritten(norm: Optional[nn.Module], x: Tensor, pool: bool) -> Unwritten:
    """Return ``norm(x)``, with the means of its maps if ``pool``."""
    if type(norm) is not nn.BatchNorm2d:
        plain = Unwritten.plain(x)
        return plain._replace(pooled=x.mean((2, 3))) if pool else plain
    mean, invstd, *away = _statistics(norm, x)
    if pool and not away:
        away = [x.detach().mean((2, 3), dtype=mean.dtype) - mean]
    return batch_norm(x, norm.weight, norm.bias, mean, invstd,
                      away[0] if pool else None, batch_stats=norm.training)
