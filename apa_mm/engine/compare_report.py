"""Tables and a picture of what variants reached with several seeds."""
import csv
import io
import statistics
from typing import Dict, List, NamedTuple, Optional, Sequence

from apa_mm.utils.tables import text_table

#: Metrics shown if no other is asked for: heading and factor to per cent.
COLUMNS = {
    'accuracy/top1': ('top-1 %', 1), 'shot/many': ('many %', 1),
    'shot/medium': ('medium %', 1), 'shot/few': ('few %', 1),
    'calibration/ece': ('ECE %', 100),
    **{f'{prefix}/bbox_{name}': (f'{text}{name} %', 100)
       for prefix, text in (('lvis', ''), ('exhaustive', 'exhaustive '))
       for name in ('AP', 'APr', 'APc', 'APf')}
}


class Cell(NamedTuple):
    """One metric of one variant over its seeds."""

    mean: float
    std: Optional[float]  # of the sample, None for a single seed
    values: List[float]


Summary = Dict[str, Dict[str, Cell]]


def summarize(variants: Sequence[str], results: Sequence[dict]) -> Summary:
    """Average 'metrics' of the results by variant and name.

    A metric that a seed lacks is left out.
    """
    grouped: Dict[str, List[Dict[str, float]]] = {}
    for variant, result in zip(variants, results, strict=True):
        grouped.setdefault(variant, []).append(result['metrics'])
    return {
        variant: {name: _cell([m[name] for m in metrics])
                  for name in metrics[0] if all(name in m for m in metrics)}
        for variant, metrics in grouped.items()}


def _cell(values: List[float]) -> Cell:
    std = statistics.stdev(values) if len(values) > 1 else None
    return Cell(statistics.fmean(values), std, values)


def choose_columns(summary: Summary,
                   metrics: Optional[Sequence[str]] = None) -> List[str]:
    """Return the metrics to show: those given, else known ones, else all.

    Raises:
        ValueError: If no variant has a metric that is asked for.
    """
    known = list(dict.fromkeys(n for cells in summary.values() for n in cells))
    for name in metrics or ():
        if name not in known:
            raise ValueError(f'no variant has the metric {name!r}; there are '
                             f'{known}')
    return list(metrics or [n for n in COLUMNS if n in known] or known)


def format_table(summary: Summary, columns: Sequence[str]) -> str:
    """Return a Markdown table; metrics of :data:`COLUMNS` in per cent."""

    def text(cell: Optional[Cell], metric: str) -> str:
        if cell is None:
            return '-'
        cell = _scaled(cell, metric)
        spread = '' if cell.std is None else f' ± {cell.std:.1f}'
        return f'{cell.mean:.1f}{spread}'

    return text_table(
        ['variant', *map(_heading, columns)],
        [[variant, *(text(cells.get(name), name) for name in columns)]
         for variant, cells in summary.items()])


def _heading(metric: str) -> str:
    return COLUMNS.get(metric, (metric, 1))[0]


def _scaled(cell: Cell, metric: str) -> Cell:
    factor = COLUMNS.get(metric, (metric, 1))[1]
    return _cell([factor * value for value in cell.values])


def format_csv(summary: Summary) -> str:
    """Return lines ``variant,metric,mean,std,seeds``, unscaled."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator='\n')
    writer.writerow(['variant', 'metric', 'mean', 'std', 'seeds'])
    writer.writerows(
        [variant, metric, cell.mean, cell.std, len(cell.values)]
        for variant, cells in summary.items()
        for metric, cell in cells.items())
    return buffer.getvalue()


def plot_bars(summary: Summary, columns: Sequence[str], path: str) -> None:
    """Draw a panel per metric: bars with deviations, a point per seed."""
    # Without pyplot no window system is asked for.
    from matplotlib.figure import Figure
    variants = list(summary)
    figure = Figure(
        figsize=(3 + 2.2 * len(columns), 1.2 + 0.35 * len(variants)),
        layout='constrained')
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, columns, strict=True):
        values: List[float] = []
        for place, name in enumerate(variants):
            if metric not in summary[name]:
                continue
            cell = _scaled(summary[name][metric], metric)
            values += cell.values
            axes.barh(place, cell.mean, xerr=cell.std or 0., color='#9db8d2',
                      ecolor='#34506b', capsize=3)
            axes.plot(cell.values, [place] * len(cell.values), '.',
                      color='#34506b', markersize=3)
        low, high = min(values), max(values)
        margin = (high - low or 1) / 2
        axes.set_xlim(max(low - margin, 0), high + margin / 4)
        axes.set_title(_heading(metric))
    panels[0].set_yticks(range(len(variants)), variants)
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=120)
