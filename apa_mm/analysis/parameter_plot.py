"""Draw kappa and lambda over depth, as in Fig. 6 of the paper."""
import os
from typing import Dict, Optional, Sequence

from torch import Tensor

from apa_mm.functional.shape import eta_at_zero, gate_slope_at_zero
from apa_mm.layers.activation import LAMBDA_FLOOR
from apa_mm.layers.pairs import Pair
from apa_mm.analysis.plot_style import drawing, label_axis, line_style

from apa_mm.weights.errors import CheckpointError
from apa_mm.checkpoint.inspection import Inspection

__all__ = ['QUANTITIES', 'plot_parameters', 'quantity']

#: What can be drawn, and how it is called.
QUANTITIES = dict(
    lambd=r'$\lambda$',
    kappa=r'$\kappa$',
    eta0=r'$\eta(0)$',
    slope='slope at 0')
_COLUMNS = (('unit', 'AGLU units'), ('gate', 'APA gates'))


def quantity(pair: Pair, name: str) -> Tensor:
    """Return one of :data:`QUANTITIES` of a unit or gate, float64, (1 or C,).

    Stored values of kappa and lambda are returned as they are; the others
    follow from lambda as used, that is not below its floor.

    Example:
        >>> import torch
        >>> one = torch.ones(1)
        >>> float(quantity(Pair('act1', 'gate', one, one), 'slope'))
        0.25
    """
    if name in ('kappa', 'lambd'):
        return getattr(pair, name).double()
    lambd = pair.lambd.double().clamp(min=LAMBDA_FLOOR)
    if name == 'eta0' or pair.kind == 'unit':
        return eta_at_zero(lambd)
    return gate_slope_at_zero(pair.kappa, lambd)


def plot_parameters(inspections: Sequence[Inspection],
                    path: str,
                    quantities: Sequence[str] = ('lambd', 'kappa'),
                    names: Optional[Sequence[str]] = None) -> None:
    """Write a picture of lambda and kappa of units and gates over depth.

    Args:
        inspections (Sequence[Inspection]): One line for each, in each panel;
            with values per channel their mean, and their range as a band.
        path (str): PNG to write.
        quantities (Sequence[str]): Rows of the picture, of
            :data:`QUANTITIES`.
        names (Sequence[str], optional): For the legend; None takes the file
            names.

    Raises:
        CheckpointError: If no file has kappa and lambda, or matplotlib is
            not installed.
    """
    if not any(inspection.pairs for inspection in inspections):
        raise CheckpointError('none of the files has kappa and lambda to '
                              'plot; leave out --plot')
    names = names or [os.path.basename(item.path) for item in inspections]
    pairs = dict(zip(names, (item.pairs for item in inspections),
                     strict=False))
    try:
        _draw(pairs, path, quantities)
    except ImportError:
        raise CheckpointError('plotting needs matplotlib; install it with '
                              '"pip install matplotlib"') from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f'{path} cannot be written: {error}') from None


def _draw(pairs: Dict[str, Sequence[Pair]], path: str,
          quantities: Sequence[str]) -> None:
    with drawing(path, len(quantities), 2, 4.2, 2.6,
                 sharex='col') as (figure, axes):
        for i, name in enumerate(quantities):
            for j, (kind, title) in enumerate(_COLUMNS):
                _panel(axes[i][j], pairs, kind, name)
                last = i == len(quantities) - 1
                if i == 0:
                    axes[i][j].set_title(title)
                label_axis(
                    axes[i][j],
                    x='depth (site number)' if last else '',
                    y=QUANTITIES[name])
        # Outside: random-looking lines leave no free corner.
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc='outside upper center', ncols=2)


def _panel(axis: object, pairs: Dict[str, Sequence[Pair]], kind: str,
           name: str) -> None:
    for number, (label, group) in enumerate(pairs.items()):
        values = [
            quantity(pair, name) for pair in group
            if pair.kind == kind and pair.kappa.numel()
        ]
        depth = range(1, len(values) + 1)
        axis.plot(depth, [v.mean().item() for v in values], label=label,
                  **line_style(number))
        if any(v.numel() > 1 for v in values):
            axis.fill_between(
                depth, [v.min().item() for v in values],
                [v.max().item() for v in values],
                alpha=0.2)
    axis.xaxis.get_major_locator().set_params(integer=True)
