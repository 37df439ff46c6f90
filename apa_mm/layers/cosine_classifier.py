"""The cosine classifier of long-tailed classification."""
from typing import Optional

import torch
from torch import Tensor, nn

from apa_mm.layers.predictor import CosineLinear
from apa_mm.registry import MODELS

__all__ = ['CosineClassifier']

FIXED_SCALE = 16.0
#: The authors start theta at 5, so S = 25.
LEARNABLE_SCALE = 5.0**2


@MODELS.register_module()
class CosineClassifier(CosineLinear):
    r"""Cosine classifier on squashed features.

    .. math:: z_k = S \frac{x}{1 + |x|} \cdot \frac{w_k}{|w_k| + \epsilon}

    Unlike :class:`~apa_mm.layers.predictor.CosineLinear`, whose arguments it
    has, a short feature vector gives small logits and a zero vector zeros.
    Weights start from U(-d, d) with d = C^-1/2; there is no bias.

    Args:
        in_features (int): C.
        out_features (int): K.
        temperature (float, optional): S, at the start if it is learned. None:
            16 if fixed, 25 if learned.
        learnable_temperature (bool): Whether S is learned.
        eps (float): Keeps zero weights finite.

    Raises:
        ValueError: If ``temperature`` is not positive or ``eps`` negative.
    """

    def __init__(self, in_features: int, out_features: int,
                 temperature: Optional[float] = None,
                 learnable_temperature: bool = False,
                 eps: float = 1e-6) -> None:
        if temperature is None:
            temperature = (
                LEARNABLE_SCALE if learnable_temperature else FIXED_SCALE)
        super().__init__(
            in_features, out_features, bias=False, temperature=temperature,
            learnable_temperature=learnable_temperature, eps=eps)
        bound = in_features**-0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def _scaled_unit(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=dtype)
        return (x * (self.scale / (1 + norm))).to(x.dtype)
