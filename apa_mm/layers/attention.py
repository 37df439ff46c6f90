"""Channel attention, spatial attention and CBAM, with gates of choice."""
from typing import Optional

import torch
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from apa_mm.layers.activation import build_site_activation
from apa_mm.registry import MODELS

#: The authors start the gates of CBAM from U(0, 1), those of SE from U(-1, 0).
GATE_CFG = dict(type='apa_mm.APA', kappa_init=(0.0, 1.0))
SPATIAL_NORM_CFG = dict(type='BN', momentum=0.01)


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
        in_channels (int): C, a positive multiple of ``reduction``.
        reduction (int): Ratio of C to the hidden width.
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
        """Return the gates (N, C) of ``x`` (N, C, H, W)."""
        return self.gate(self.excite(x.mean(dim=(2, 3))))

    def excite(self, pooled: Tensor) -> Tensor:
        """Map pooled features (N, C) to what the gate gets (N, C)."""
        if self.norm is not None:
            pooled = self.norm(pooled)
        excitation = self.fc2(self.act(self.fc1(pooled)))
        if self.dropout is not None:
            excitation = self.dropout(excitation)
        return excitation


@MODELS.register_module()
class SpatialAttention(nn.Module):
    r"""Scale each place of a feature map by a gate.

    .. math::
        g = \eta(\mathrm{BN}(\mathrm{conv}([\max_c X, \mathrm{mean}_c X]))),
        \quad Y = X \cdot g

    Args:
        in_channels (int, optional): Has no effect; every backbone sets it.
        kernel_size (int): Odd size of the convolution, which has no bias.
        gate_cfg (dict): Any registered activation.
        norm_cfg (dict, optional): Norm of the one-channel map.

    Raises:
        ValueError: If ``kernel_size`` is not odd and positive.
    """

    def __init__(self, in_channels: Optional[int] = None,
                 kernel_size: int = 7, gate_cfg: dict = GATE_CFG,
                 norm_cfg: Optional[dict] = SPATIAL_NORM_CFG) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError('kernel_size must be odd and positive, so that '
                             f'the map keeps its size, but got {kernel_size}')
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2,
                              bias=False)
        self.bn = None if norm_cfg is None else build_norm_layer(
            norm_cfg, 1)[1]
        self.gate = build_site_activation(gate_cfg, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scale each place of ``x`` (N, C, H, W) by its gate."""
        pooled = torch.cat(
            [x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
        excitation = self.conv(pooled)  # (N, 1, H, W)
        if self.bn is not None:
            excitation = self.bn(excitation)
        return x * self.gate(excitation)


class _DualPoolAttention(ChannelAttention):
    """Channel attention whose linear layers see mean and maximum alike."""

    def gates(self, x: Tensor) -> Tensor:
        excitation = self.excite(x.mean(dim=(2, 3)))  # (N, C)
        return self.gate(excitation + self.excite(x.amax(dim=(2, 3))))


@MODELS.register_module()
class CBAM(nn.Module):
    r"""Channel attention, then spatial attention.

    "CBAM: Convolutional Block Attention Module" (ECCV 2018), with the gates,
    LayerNorm and dropout of the Adaptive Parametric Activation paper.

    .. math::
        f(v) = \mathrm{dropout}(W_2\,\mathrm{relu}(W_1\,\mathrm{LN}(v) + b_1)
        + b_2), \quad
        Z = X \cdot \eta(f(\mathrm{mean}_{hw} X) + f(\max_{hw} X))

    followed by :class:`SpatialAttention` on Z. The baseline is
    ``gate_cfg=dict(type='Sigmoid')``, with LayerNorm and dropout.

    Arguments are those of :class:`ChannelAttention`, and ``kernel_size`` and
    ``spatial_norm_cfg`` of :class:`SpatialAttention`, whose gate is
    ``spatial_gate_cfg``, by default that of the channels.
    """

    _abbr_: str = 'cbam'  # mmcv would name a plugin layer "c_b_a_m"

    def __init__(self, in_channels: int, reduction: int = 16,
                 gate_cfg: dict = GATE_CFG,
                 spatial_gate_cfg: Optional[dict] = None,
                 act_cfg: dict = dict(type='ReLU', inplace=True),
                 norm_cfg: Optional[dict] = dict(type='LN'),
                 dropout: float = 0.1, bias: bool = True, kernel_size: int = 7,
                 spatial_norm_cfg: Optional[dict] = SPATIAL_NORM_CFG) -> None:
        super().__init__()
        self.channel = _DualPoolAttention(in_channels, reduction, gate_cfg,
                                          act_cfg, norm_cfg, dropout, bias)
        self.spatial = SpatialAttention(
            kernel_size=kernel_size, gate_cfg=spatial_gate_cfg or gate_cfg,
            norm_cfg=spatial_norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Scale ``x`` (N, C, H, W) by channel, then by place."""
        return self.spatial(self.channel(x))
