"""Channel attention whose gate, LayerNorm and dropout come from the config."""
from typing import Optional

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from apa_mm.layers.activation import build_site_activation
from apa_mm.registry import MODELS

__all__ = ['ChannelAttention']


@MODELS.register_module()
class ChannelAttention(nn.Module):
    r"""Squeeze-and-excitation with a gate of choice (APA* by default).

    .. math::
        g = \eta(\mathrm{dropout}(W_2\,\mathrm{relu}(W_1\,
        \mathrm{LN}(\mathrm{mean}_{hw} X)))), \quad Y = X \cdot g

    The rows of Table 4e are the SE baseline (``gate_cfg=dict(type='Sigmoid'),
    norm_cfg=None, dropout=0``), + APA (``norm_cfg=None, dropout=0``),
    + dropout (``norm_cfg=None``), and APA*, the default.

    Args:
        in_channels (int): C.
        reduction (int): Ratio of C to the hidden width; 16 in the ImageNet
            networks, 4 in the CIFAR ones.
        gate_cfg (dict): Any registered activation;
            ``num_parameters='channels'`` gives every channel its own values.
        act_cfg (dict): Activation between the two linear layers.
        norm_cfg (dict, optional): Norm of the pooled vector.
        dropout (float): Probability in [0, 1). Dropout comes before the gate,
            so that a dropped channel gets the gate's value at 0.
        bias (bool): Of both linear layers.

    Raises:
        ValueError: If ``in_channels`` is not a positive multiple of
            ``reduction`` or ``dropout`` is out of range.
        KeyError: If the gate is not registered.
    """

    def __init__(self, in_channels: int, reduction: int = 16,
                 gate_cfg: dict = dict(type='apa_mm.APA'),
                 act_cfg: dict = dict(type='ReLU', inplace=True),
                 norm_cfg: Optional[dict] = dict(type='LN'),
                 dropout: float = 0.1, bias: bool = False) -> None:
        super().__init__()
        if in_channels < 1 or reduction < 1 or in_channels % reduction:
            raise ValueError(
                'in_channels must be a positive multiple of reduction, but '
                f'got in_channels={in_channels} and reduction={reduction}; '
                'choose a reduction that divides it')
        if not 0 <= dropout < 1:
            raise ValueError(f'dropout must be in [0, 1), but got {dropout}')
        hidden = in_channels // reduction
        self.norm = None if norm_cfg is None else build_norm_layer(
            norm_cfg, in_channels)[1]
        self.fc1 = nn.Linear(in_channels, hidden, bias=bias)
        self.act = build_site_activation(act_cfg, hidden)
        self.fc2 = nn.Linear(hidden, in_channels, bias=bias)
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.gate = build_site_activation(gate_cfg, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel of ``x`` (N, C, H, W) by its gate."""
        return x * self.gates(x)[:, :, None, None]

    def gates(self, x: Tensor) -> Tensor:
        """Return the gate (N, C) of every channel of ``x`` (N, C, H, W)."""
        return self.gate(self.excite(x.mean(dim=(2, 3))))

    def excite(self, pooled: Tensor) -> Tensor:
        """Map pooled features (N, C) to what the gate gets (N, C)."""
        if self.norm is not None:
            pooled = self.norm(pooled)
        excitation = self.fc2(self.act(self.fc1(pooled)))
        if self.dropout is not None:
            excitation = self.dropout(excitation)
        return excitation
