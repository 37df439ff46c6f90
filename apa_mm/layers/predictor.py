"""Cosine predictors. Shapes: N samples, C input channels, K classes, H, W."""
import math
from typing import Any, Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from apa_mm.registry import MODELS


def classwise_conv2d(x: Tensor, weight: Tensor, bias: Optional[Tensor],
                     labels: Tensor) -> Tensor:
    """Compute one output channel per sample of a 1 x 1 convolution.

    Equals ``F.conv2d(x, weight, bias)[range(N), labels][:, None]``, at 1 / K
    of its memory: logits (N, 1, H, W) from ``x`` (N, C, H, W), ``weight``
    (K, C, 1, 1) and ``bias`` (K,).
    """
    return _add_bias(_rows_dot(x, weight[labels]), bias, labels)


def cosine_classwise_conv2d(x: Tensor, weight: Tensor, bias: Optional[Tensor],
                            labels: Tensor, *, scale: Union[Tensor, float],
                            power: float, eps: float) -> Tensor:
    """Compute one output channel per sample of a 1 x 1 cosine convolution.

    See :class:`CosineLinear` for the formula with T = ``scale`` and p =
    ``power``, :func:`classwise_conv2d` for the rest.
    """
    rows = weight[labels]  # (N, C, 1, 1)
    rows = (rows / _divisor(rows, power, eps)).to(x.dtype)
    dot = _rows_dot(x, rows)
    logits = (dot * (scale / _divisor(x, power, eps))).to(dot.dtype)
    return _add_bias(logits, bias, labels)


def _rows_dot(x: Tensor, rows: Tensor) -> Tensor:
    """Multiply each sample (C, H, W) by its own row (C, 1, 1)."""
    dot = torch.bmm(rows.flatten(1)[:, None], x.flatten(2))  # (N, 1, H * W)
    return dot.unflatten(2, x.shape[2:])


def _add_bias(logits: Tensor, bias: Optional[Tensor],
              labels: Tensor) -> Tensor:
    if bias is None:
        return logits
    return logits + bias[labels].to(logits.dtype)[:, None, None, None]


def _divisor(x: Tensor, power: float, eps: float) -> Tensor:
    """Return ``|x|^p + eps`` over axis 1, at least in float32."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=dtype)
    return norm.pow(power) + eps


class _Temperature(nn.Module):
    """Temperature, power and eps of the layers; see :class:`CosineLinear`."""

    def __init__(self, *args: Any, temperature: Optional[float] = None,
                 learnable_temperature: bool = False, power: float = 1.0,
                 eps: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if temperature is None:
            # 20 as in mmdet; theta = 4.5 as in the paper's detection code.
            temperature = 4.5**2 if learnable_temperature else 20.0
        if not temperature > 0 or not eps >= 0:
            raise ValueError(
                'temperature must be positive and eps must not be negative, '
                f'but got temperature={temperature} and eps={eps}')
        self.learnable_temperature = learnable_temperature
        self.power = power
        self.eps = eps
        if learnable_temperature:
            self.temperature = nn.Parameter(
                self.weight.new_tensor(math.sqrt(temperature)))
        else:
            self.temperature = float(temperature)

    @property
    def scale(self) -> Union[Tensor, float]:
        """Tensor | float: T, what the cosine is multiplied by."""
        return self.temperature.square() if self.learnable_temperature \
            else self.temperature

    def _unit(self, x: Tensor) -> Tensor:
        return (x / _divisor(x, self.power, self.eps)).to(x.dtype)

    def _scaled_unit(self, x: Tensor) -> Tensor:
        factor = self.scale / _divisor(x, self.power, self.eps)
        return (x * factor).to(x.dtype)

    def extra_repr(self) -> str:
        """Return the settings for ``print(module)``."""
        scale = self.scale
        if isinstance(scale, Tensor):
            scale = scale.tolist()
        return (f'{super().extra_repr()}, scale={scale:g}, '
                f'learnable_temperature={self.learnable_temperature}, '
                f'power={self.power}, eps={self.eps}')


@MODELS.register_module()
class CosineLinear(_Temperature, nn.Linear):
    r"""Linear layer on normalised input and weight.

    .. math:: z_k = T \frac{x}{|x|^p + \epsilon} \cdot
        \frac{w_k}{|w_k|^p + \epsilon} + b_k

    Weights start from N(0, 0.01), biases from 0. With a fixed temperature the
    state dict is that of mmdet's ``NormedLinear``. A learnable T is stored as
    ``temperature``, a scalar theta with T = theta^2, without weight decay.

    Args:
        in_features, out_features, bias: As in ``nn.Linear``: C, K and b.
        temperature (float, optional): T, positive, at the start if it is
            learned. None: 20 if fixed, 20.25 (theta = 4.5) if learned.
        learnable_temperature (bool): Whether T is learned.
        power (float): p.
        eps (float): Not negative; keeps zero vectors finite.
        **kwargs: ``device`` and ``dtype`` of ``nn.Linear``.

    Raises:
        ValueError: If ``temperature`` is not positive or ``eps`` negative.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True,
                 **kwargs: Any) -> None:
        super().__init__(in_features, out_features, bias, **kwargs)
        nn.init.normal_(self.weight, std=0.01)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of ``x`` (N, C)."""
        return F.linear(
            self._scaled_unit(x), self._unit(self.weight), self.bias)


@MODELS.register_module()
class CosineClassifier(CosineLinear):
    r"""Cosine classifier on squashed features.

    .. math:: z_k = S \frac{x}{1 + |x|} \cdot \frac{w_k}{|w_k| + \epsilon}

    Unlike :class:`CosineLinear`, a short feature vector gives small logits.
    Weights start from U(-d, d) with d = C^-1/2; there is no bias.

    ``temperature`` is S; None is 16 if fixed, 25 if learned. Other arguments
    and errors are those of :class:`CosineLinear`.
    """

    def __init__(self, in_features: int, out_features: int,
                 temperature: Optional[float] = None,
                 learnable_temperature: bool = False,
                 eps: float = 1e-6) -> None:
        if temperature is None:  # the authors start theta at 5
            temperature = 5.0**2 if learnable_temperature else 16.0
        super().__init__(
            in_features, out_features, bias=False, temperature=temperature,
            learnable_temperature=learnable_temperature, eps=eps)
        bound = in_features**-0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def _scaled_unit(self, x: Tensor) -> Tensor:
        factor = self.scale / _divisor(x, power=1.0, eps=1.0)
        return (x * factor).to(x.dtype)


@MODELS.register_module()
class CosineConv2d(_Temperature, nn.Conv2d):
    """Convolution on input and weight normalised over the channels.

    The formula of :class:`CosineLinear` at each place, with the start of
    ``nn.Conv2d`` and the state dict of mmdet's ``NormedConv2d``.

    Arguments are those of ``nn.Conv2d``, then those of :class:`CosineLinear`
    from ``temperature`` on, with its errors.

    Example:
        >>> import torch
        >>> layer = CosineConv2d(8, 1203, 1)
        >>> x, labels = torch.rand(2, 8, 4, 4), torch.tensor([7, 1202])
        >>> one = layer.forward_classwise(x, labels)
        >>> torch.allclose(one[:, 0], layer(x)[range(2), labels], atol=1e-5)
        True
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K, H, W) of ``x`` (N, C, H, W)."""
        return self._conv_forward(
            self._scaled_unit(x), self._unit(self.weight), self.bias)

    def forward_classwise(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the logits (N, 1, H, W) of one class of each sample.

        Raises:
            ValueError: Unless the layer is a plain 1 x 1 convolution.
        """
        if (self.kernel_size, self.stride, self.padding,
                self.groups) != ((1, 1), (1, 1), (0, 0), 1):
            raise ValueError(
                'forward_classwise needs a plain 1 x 1 convolution, but got '
                f'{self}; use forward and pick the channels')
        return cosine_classwise_conv2d(
            x, self.weight, self.bias, labels,
            scale=self.scale, power=self.power, eps=self.eps)
