"""Running BatchNorm, attention and AGLU modules in their fused forms.

The modules stay what they are, with their names and state; only their forward
passes are joined where that changes nothing but time and memory.
"""
from typing import Optional, Tuple

import torch
from torch import Tensor, nn

from apa_mm.kernels.activation import choose_backend, is_plain
from apa_mm.kernels.fused import (Affine, batch_norm_aglu, batch_statistics,
                                  residual_aglu, usable)

from .activation import AGLU
from .attention import ChannelAttention

__all__ = ['can_fuse', 'fused_block_end', 'fused_norm_act']


def can_fuse(wanted: Optional[bool], x: Tensor,
             *modules: Optional[nn.Module]) -> bool:
    """Return whether the modules may be joined for this input.

    Args:
        wanted (bool, optional): False never joins, True joins wherever the
            result is the same, None only where it was measured to be faster:
            float32 on the CPU, with the compiled form.
        x (Tensor): Input of the first module.
        *modules (nn.Module | None): A BatchNorm2d, AGLU or ChannelAttention
            each; None is left out.

    Returns:
        bool: False while tracing or compiling, for tensor subclasses and
        within ``torch.func``'s transforms, if a module is of another type
        (SyncBN among them), has no affine parameters or running statistics,
        varies along another axis, or carries a hook, which would not run.
    """
    if (torch.compiler.is_compiling() or torch.jit.is_tracing()
            or not is_plain(x)):
        return False
    if wanted is None:
        wanted = (
            x.dtype == torch.float32 and choose_backend(x) == 'native'
            and x.is_contiguous())
    return wanted and x.dim() == 4 and all(
        _is_plain(m) and not _has_hooks(m) for m in modules if m is not None)


def _is_plain(module: nn.Module) -> bool:
    if type(module) is nn.BatchNorm2d:
        return module.affine and module.track_running_stats
    if type(module) is AGLU:
        return module.num_parameters == 1 or module.channel_dim == 1
    return type(module) is ChannelAttention


def _has_hooks(module: nn.Module) -> bool:
    return any(
        getattr(module, name)
        for name in ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks',
                     '_backward_pre_hooks'))


def _statistics(norm: nn.BatchNorm2d, x: Tensor) -> Tuple[Tensor, Tensor]:
    """Return mean and 1 / std as ``norm`` uses them; update the running ones.

    As in ``nn.BatchNorm2d.forward``: a momentum of None averages over all
    batches, and the running variance is the unbiased one.
    """
    if not norm.training:
        return norm.running_mean, torch.rsqrt(norm.running_var + norm.eps)
    count = x.numel() / x.shape[1]
    if count == 1:
        raise ValueError('Expected more than 1 value per channel when '
                         f'training, got input size {tuple(x.shape)}')
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        factor = norm.momentum
        if factor is None:
            factor = 1.0 / float(norm.num_batches_tracked)
        if usable(x, norm.running_mean, norm.running_var):
            return batch_statistics(x, norm.running_mean, norm.running_var,
                                    norm.eps, factor)
        var, mean = torch.var_mean(
            x.float() if x.dtype.itemsize < 4 else x, (0, 2, 3), correction=0)
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), factor)
        norm.running_var.lerp_(
            (var * (count / (count - 1))).to(norm.running_var.dtype), factor)
        return mean, torch.rsqrt(var + norm.eps)


def fused_norm_act(norm: nn.BatchNorm2d, act: AGLU, x: Tensor) -> Tensor:
    """Return ``act(norm(x))`` and keep only ``x`` for the backward pass.

    Args:
        norm (nn.BatchNorm2d): In either mode.
        act (AGLU): The unit behind it.
        x (Tensor): (N, C, H, W).

    Returns:
        Tensor: (N, C, H, W).
    """
    mean, invstd = _statistics(norm, x)
    return batch_norm_aglu(
        x,
        norm.weight,
        norm.bias,
        mean,
        invstd,
        batch_stats=norm.training,
        lambda_grad=act.lambda_grad,
        **act.values(x))


def fused_block_end(norm: nn.BatchNorm2d,
                    attention: Optional[ChannelAttention],
                    act: AGLU,
                    x: Tensor,
                    identity: Tensor,
                    downsample: Optional[nn.Sequential] = None) -> Tensor:
    """Return ``act(attention(norm(x)) + shortcut)``, keeping only inputs.

    Args:
        norm (nn.BatchNorm2d): Last norm of the block.
        attention (ChannelAttention, optional): Attention before the addition.
        act (AGLU): Unit after the addition.
        x (Tensor): (N, C, H, W), input of ``norm``.
        identity (Tensor): Input of the block.
        downsample (nn.Sequential, optional): The shortcut, which ends with a
            BatchNorm2d; None adds ``identity`` itself.

    Returns:
        Tensor: (N, C, H, W).
    """
    if not norm.training and not torch.is_grad_enabled():
        return _inference_block_end(norm, attention, act, x, identity,
                                    downsample)
    h, recipe = _norm_with_recipe(norm, x)
    short = None
    if downsample is not None:
        identity, short = _norm_with_recipe(downsample[-1],
                                            downsample[:-1](identity))
    gate = h.new_ones(h.shape[:2]) if attention is None else attention.gates(h)
    return residual_aglu(
        h,
        gate,
        identity,
        recipe,
        short,
        lambda_grad=act.lambda_grad,
        **act.values(h))


def _inference_block_end(norm: nn.BatchNorm2d,
                         attention: Optional[ChannelAttention], act: AGLU,
                         x: Tensor, identity: Tensor,
                         downsample: Optional[nn.Sequential]) -> Tensor:
    """Return what the block ends with, in one pass over its inputs.

    With fixed statistics the mean of ``norm(x)`` is that of ``x``, scaled and
    shifted, so that no norm's output needs to be written down.
    """
    main, short = _fixed_recipe(norm, x), None
    if downsample is not None:
        identity = downsample[:-1](identity)
        short = _fixed_recipe(downsample[-1], identity)
    gate = x.new_ones(x.shape[:2])
    if attention is not None:
        pooled = x.mean(dim=(2, 3)) * main.scale + main.shift
        gate = attention.gate(attention.excite(pooled.to(x.dtype)))
    return residual_aglu(
        None,
        gate,
        identity,
        main,
        short,
        lambda_grad=act.lambda_grad,
        **act.values(x))


def _fixed_recipe(norm: nn.BatchNorm2d, x: Tensor) -> Affine:
    return Affine.of(x, norm.weight, norm.bias, *_statistics(norm, x))


def _norm_with_recipe(norm: nn.BatchNorm2d,
                      x: Tensor) -> Tuple[Tensor, Affine]:
    """Return ``norm(x)`` and how to compute it again from ``x``."""
    if norm.training:
        norm.num_batches_tracked.add_(1)
        factor = norm.momentum
        if factor is None:
            factor = 1.0 / float(norm.num_batches_tracked)
        out, mean, invstd = torch.native_batch_norm(x, norm.weight, norm.bias,
                                                    norm.running_mean,
                                                    norm.running_var, True,
                                                    factor, norm.eps)
    else:
        out = norm(x)
        mean, invstd = _statistics(norm, x)
    return out, Affine.of(x.detach(), norm.weight.detach(),
                          norm.bias.detach(), mean, invstd)
