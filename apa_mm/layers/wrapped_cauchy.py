"""Classifier whose logits follow the wrapped Cauchy density (V3Det)."""
import math
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from apa_mm.registry import MODELS
from apa_mm.utils.checks import check_choice


@MODELS.register_module()
class WrappedCauchyLinear(nn.Module):
    r"""Linear classifier with wrapped Cauchy logits.

    .. math::
        z_c = \frac{s}{2\pi}\,
        \frac{1 - \gamma_c^2}{1 + \gamma_c^2 - 2\gamma_c u_c} + b_c,
        \quad u_c = \langle \hat x, \hat w_c \rangle,
        \quad \gamma_c = \sigma(g_c)

    The form ``released`` is that of the authors' V3Det detectors, for their
    weights: the bias is added to the cosine, where a value above 0.05 can
    pass the pole at ``(1 + gamma^2) / (2 gamma)`` and flip the sign, and 3.14
    stands for pi. MMDetection takes the layer as ``cls_predictor_cfg``.

    Args:
        in_features, out_features, bias: As in ``nn.Linear``: D, C and b.
        scale (float, optional): Fixed s, positive; None learns it, from 50.
        form (str): 'exact' or 'released'.
        power (float): Exponent of the norms that divide.
        eps (float): Added to the norms, so that a zero input is safe.

    Raises:
        ValueError: For an unknown form or a scale that is not positive.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True,
                 scale: Optional[float] = 300.0, form: str = 'exact',
                 power: float = 1.0, eps: float = 1e-6) -> None:
        super().__init__()
        check_choice('form', form, ('exact', 'released'))
        if scale is not None and not scale > 0:
            raise ValueError('scale must be positive, or None to learn it, '
                             f'but got {scale}')
        self.in_features, self.out_features = in_features, out_features
        self.form, self.power, self.eps = form, power, eps
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.g = nn.Parameter(torch.empty(out_features))
        self.fixed_scale = scale
        self.scale = nn.Parameter(torch.empty(())) if scale is None else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the authors' initial values: N(0, 0.01), b = 0, g = 1."""
        nn.init.normal_(self.weight, std=0.01)
        nn.init.ones_(self.g)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if self.scale is not None:
            nn.init.constant_(self.scale, 50.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, C) of features (N, D), at least float32."""
        if x.dtype != torch.float64:
            x = x.float()
        with torch.autocast(x.device.type, enabled=False):
            cosine = F.linear(
                self._normalize(x), self._normalize(self.weight.to(x.dtype)))
            released = self.form == 'released'
            if released and self.bias is not None:
                cosine = cosine + self.bias
            gamma = self.g.to(x.dtype).sigmoid()
            density = (1 - gamma.square()) / (
                1 + gamma.square() - 2 * gamma * cosine)
            scale = self.fixed_scale if self.scale is None else self.scale
            logits = density * (scale / (2 * (3.14 if released else math.pi)))
            if not released and self.bias is not None:
                logits = logits + self.bias
        return logits

    def _normalize(self, v: Tensor) -> Tensor:
        norm = v.norm(dim=-1, keepdim=True)
        return v / (norm.pow(self.power) + self.eps)

    def extra_repr(self) -> str:
        """Return the settings for ``print(module)``."""
        return (f'in_features={self.in_features}, '
                f'out_features={self.out_features}, '
                f'bias={self.bias is not None}, scale={self.fixed_scale}, '
                f'form={self.form!r}')
