"""Draw kappa and lambda over depth, as in Fig. 6 of the paper."""
import os
from typing import Sequence

from .errors import CheckpointError
from .inspection import Inspection

__all__ = ['plot_parameters']

_ROWS = (('lambd', r'$\lambda$'), ('kappa', r'$\kappa$'))
_COLUMNS = (('unit', 'AGLU units'), ('gate', 'APA gates'))
#: Told apart in grey, too.
_STYLES = ('o-', 's--', '^:', 'd-.', 'v-', 'x--')


def plot_parameters(inspections: Sequence[Inspection], path: str) -> None:
    """Write a picture of lambda and kappa of units and gates over depth.

    Args:
        inspections (Sequence[Inspection]): One line for each, in each panel;
            with values per channel their mean, and their range as a band.
        path (str): PNG (or another format of matplotlib) to write.

    Raises:
        CheckpointError: If no file has kappa and lambda, or matplotlib is
            not installed.
    """
    if not any(inspection.pairs for inspection in inspections):
        raise CheckpointError('none of the files has kappa and lambda to '
                              'plot; leave out --plot')
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise CheckpointError('plotting needs matplotlib; install it with '
                              '"pip install matplotlib"') from None
    figure = Figure(figsize=(9, 6), dpi=150, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2, sharex='col', squeeze=False)
    for i, (leaf, symbol) in enumerate(_ROWS):
        for j, (kind, title) in enumerate(_COLUMNS):
            _panel(axes[i][j], inspections, kind, leaf)
            axes[i][j].set_ylabel(symbol)
            axes[i][j].grid(alpha=0.3)
            if i == 0:
                axes[i][j].set_title(title)
            else:
                axes[i][j].set_xlabel('depth (site number)')
    # Outside: random-looking lines leave no free corner.
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc='outside upper center', ncols=2, fontsize='small')
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f'{path} cannot be written: {error}') from None


def _panel(axis, inspections: Sequence[Inspection], kind: str,
           leaf: str) -> None:
    for number, inspection in enumerate(inspections):
        values = [
            getattr(pair, leaf).double() for pair in inspection.pairs
            if pair.kind == kind and pair.kappa.numel()
        ]
        depth = range(1, len(values) + 1)
        style = _STYLES[number % len(_STYLES)]
        axis.plot(
            depth, [v.mean().item() for v in values],
            style,
            markersize=3,
            linewidth=1,
            label=os.path.basename(inspection.path))
        if any(v.numel() > 1 for v in values):
            axis.fill_between(
                depth, [v.min().item() for v in values],
                [v.max().item() for v in values],
                alpha=0.2)
