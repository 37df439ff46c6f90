"""Learnable activations as modules: gates (eta) and units (x * eta)."""
from typing import Any, Optional, Sequence, Union

import torch
from torch import Tensor, nn

from apa_mm.functional import aglu, apa, gumbel, lower_bound
from apa_mm.functional.apa import LAMBDA_GRADS
from apa_mm.registry import MODELS
from apa_mm.utils.checks import check_choice, check_range

# The one unit of Table 9 that mmcv does not register.
MODELS.register_module(module=nn.Mish)

#: Smallest lambda that a module uses, as in the authors' detection code.
LAMBDA_FLOOR = 1e-4

Init = Union[float, Sequence[float]]
Device = Union[torch.device, str, int, None]


@torch.fx.wrap
def _along_channels(parameter: Tensor, x: Tensor, count: int,
                    dim: int) -> Tensor:
    """Return ``(C,)`` in the shape that broadcasts along axis ``dim``."""
    found = x.shape[dim] if -x.dim() <= dim < x.dim() else None
    if not torch.jit.is_tracing() and found != count:
        raise ValueError(
            f'num_parameters must be 1 or the channel count {found} of '
            f'an input of shape {tuple(x.shape)} (channel_dim={dim}), but '
            f'got {count}; set num_parameters={found} or '
            'channel_dim in act_cfg or gate_cfg')
    shape = [1] * x.dim()
    shape[dim] = count
    return parameter.reshape(shape)


class _Parametric(nn.Module):
    """Base of the modules with one value, or one per channel, to learn."""

    def __init__(self, num_parameters: int = 1, kappa_init: Init = 1.0,
                 channel_dim: int = 1, inplace: bool = False,
                 device: Device = None,
                 dtype: Optional[torch.dtype] = None) -> None:
        super().__init__()
        if isinstance(num_parameters, bool):
            num_parameters = 1  # timm's act_layer(inplace)
        if not isinstance(num_parameters, int) or num_parameters < 1:
            raise ValueError('num_parameters must be 1 or the number of '
                             f'channels, but got {num_parameters!r}')
        self.num_parameters = num_parameters
        self.channel_dim = channel_dim
        self.kappa_init = check_range('kappa_init', kappa_init)
        self.kappa = nn.Parameter(
            torch.empty(num_parameters, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters from their initial ranges again."""
        for name, parameter in self.named_parameters():
            nn.init.uniform_(parameter, *getattr(self, f'{name}_init'))

    def _align(self, parameter: Tensor, x: Tensor) -> Tensor:
        if self.num_parameters == 1:
            return parameter
        return _along_channels(parameter, x, self.num_parameters,
                               self.channel_dim)

    def extra_repr(self) -> str:
        text = (f'num_parameters={self.num_parameters}, '
                f'kappa_init={self.kappa_init}')
        if self.num_parameters > 1:
            text += f', channel_dim={self.channel_dim}'
        return text


class _Adaptive(_Parametric):
    """Base of APA and AGLU: adds lambda, kept at or above a floor."""

    def __init__(self, num_parameters: int = 1,
                 kappa_init: Init = (-1.0, 0.0), lambd_init: Init = (0.0, 1.0),
                 lambd_min: float = LAMBDA_FLOOR, **kwargs: Any) -> None:
        super().__init__(num_parameters, kappa_init, **kwargs)
        if not lambd_min > 0:
            raise ValueError(f'lambd_min must be positive, but got '
                             f'{lambd_min}; the default is {LAMBDA_FLOOR}')
        self.lambd_init = check_range('lambd_init', lambd_init)
        self.lambd_min = lambd_min
        self.lambd = nn.Parameter(torch.empty_like(self.kappa))
        nn.init.uniform_(self.lambd, *self.lambd_init)

    def values(self, x: Tensor) -> dict:
        """Return ``kappa`` and the bounded ``lambd``, shaped for ``x``."""
        kappa, lambd = self.kappa, lower_bound(self.lambd, self.lambd_min)
        if self.num_parameters > 1:
            kappa, lambd = self._align(kappa, x), self._align(lambd, x)
        return dict(kappa=kappa, lambd=lambd)

    def extra_repr(self) -> str:
        return (f'{super().extra_repr()}, lambd_init={self.lambd_init}, '
                f'lambd_min={self.lambd_min}')


@MODELS.register_module()
class APA(_Adaptive):
    """Adaptive Parametric Activation, :func:`apa_mm.functional.apa` (Eq. 5).

    A lambda that training pushes below ``lambd_min`` counts as ``lambd_min``
    and can return, see :func:`apa_mm.functional.lower_bound`.

    Args:
        num_parameters (int): 1 (shared) or the channel count (Table 13).
        kappa_init (float | Sequence[float]): Initial constant or uniform
            range. The paper's gates use U(-1, 0) on long-tailed data and
            LVIS, U(0, 1) on ImageNet-1K and iNaturalist.
        lambd_init (float | Sequence[float]): The same for lambda.
        lambd_min (float): Floor of lambda, positive.
        channel_dim (int): Axis of the channels if ``num_parameters > 1``.
        inplace (bool): Has no effect; accepted because mmcv and timm set it.
        device, dtype: Of the parameters.

    Raises:
        ValueError: For a bad argument, or an input whose channel count is
            not ``num_parameters``.

    Example:
        >>> gate = APA(kappa_init=1.0, lambd_init=1.0)
        >>> gate(torch.zeros(1, 2))
        tensor([[0.5000, 0.5000]], grad_fn=<_ActivationBackward>)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return eta(x) in [0, 1], shape and dtype of ``x``."""
        return apa(x, **self.values(x))


@MODELS.register_module()
class AGLU(_Adaptive):
    """Adaptive Generalised Linear Unit, Eq. 6; :func:`apa_mm.functional.aglu`.

    Arguments and errors are those of :class:`APA`, with kappa drawn from
    U(1, 1.3) as in the paper (Table 11), and ``lambda_grad`` of the function.

    Example:
        >>> unit = AGLU(kappa_init=1.0, lambd_init=1.0)
        >>> unit(torch.ones(1))
        tensor([0.7311], grad_fn=<_ActivationBackward>)
    """

    def __init__(self, num_parameters: int = 1, kappa_init: Init = (1.0, 1.3),
                 *args: Any, lambda_grad: str = 'exact',
                 **kwargs: Any) -> None:
        super().__init__(num_parameters, kappa_init, *args, **kwargs)
        check_choice('lambda_grad', lambda_grad, LAMBDA_GRADS)
        self.lambda_grad = lambda_grad

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x * eta(x)``, shape and dtype of ``x``."""
        return aglu(x, lambda_grad=self.lambda_grad, **self.values(x))

    def extra_repr(self) -> str:
        """Return the settings for ``print(module)``."""
        return f'{super().extra_repr()}, lambda_grad={self.lambda_grad!r}'


@MODELS.register_module()
class Gumbel(nn.Module):
    """Gumbel gate ``exp(-exp(-x))``, :func:`apa_mm.functional.gumbel`.

    The arguments have no effect, as there are no parameters.
    """

    def __init__(self, inplace: bool = False, device: Device = None,
                 dtype: Optional[torch.dtype] = None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Return values in [0, 1], shape and dtype of ``x``."""
        return gumbel(x)


@MODELS.register_module()
class TemperedSigmoid(_Parametric):
    """Sigmoid with a learnable inverse temperature, ``sigmoid(kappa * x)``.

    The row "sigmoid with temperature" of Table 4a: APA with lambda held at 1.
    Arguments are those of :class:`APA` without those for lambda.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return values in [0, 1], shape and dtype of ``x``."""
        kappa = self._align(self.kappa, x)
        if self.num_parameters == 1:  # half inputs stay half
            kappa = kappa.reshape(())
        return torch.sigmoid(kappa * x)


@MODELS.register_module()
class TemperedGumbel(TemperedSigmoid):
    """Gumbel gate ``exp(-exp(-kappa * x))`` with a learnable kappa (Table 4a).

    APA in the limit of lambda to 0; arguments as in :class:`TemperedSigmoid`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return values in [0, 1], shape and dtype of ``x``."""
        return gumbel(x, kappa=self._align(self.kappa, x))


def build_site_activation(cfg: dict, channels: int) -> nn.Module:
    """Build the activation of one site from a config shared by many.

    ``num_parameters='channels'`` in the config stands for the site's channel
    count (Table 13). The module is never shared with another site.
    """
    if cfg.get('num_parameters') == 'channels':
        cfg = dict(cfg, num_parameters=channels)
    return MODELS.build(cfg)
