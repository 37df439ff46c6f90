"""kappa, lambda and their shapes over depth and training (Fig. 6)."""
import os.path as osp
from functools import partial
from typing import List, Mapping, Sequence

from torch import Tensor

from apa_mm.checkpoint import Inspection, inspect_file
from apa_mm.functional.apa import eta_at_zero, gate_slope_at_zero
from apa_mm.layers.activation import LAMBDA_FLOOR
from apa_mm.layers.pairs import Pair
from apa_mm.weights.errors import CheckpointError

from .errors import AnalysisError
from .loading import Settings, Source
from .plot_style import drawing, legend_above, line_style
from .runs import Row, View, grouped
from .traces import draw_trace, read_trace, starts_of

#: What is measured, and how it is called.
QUANTITIES = dict(lambd=r'$\lambda$', kappa=r'$\kappa$',
                  eta0=r'$\eta(0)$', slope='slope at 0')
_MEANS = ('kappa', 'lambd', 'slope', 'eta0')
_COLUMNS = (('unit', 'AGLU units'), ('gate', 'APA gates'))
#: More sites than this have no room for their names.
MAX_NAMES = 40
TEXT = (
    'kappa and lambda of every unit (AGLU) and gate (APA) from input to '
    'output, and the shapes they make: eta(0) = (1 + lambda)^(-1/lambda) '
    'is a gate\'s value and a unit\'s slope at 0 (1/2 for the sigmoid, 1/e '
    'for the Gumbel probability); a gate\'s slope at 0 is kappa '
    '(1 + lambda)^(-1/lambda - 1), negative if a larger input shuts it. '
    'Values per channel are drawn as their mean and range. Of a run with '
    'ParameterTraceHook an open mark shows the start of training.')


def quantity(pair: Pair, name: str) -> Tensor:
    """Return one of :data:`QUANTITIES` of a unit or gate, float64, (1 or C,).

    Lambda is as stored; eta(0) and the slope follow from it as used, that is
    not below its floor.
    """
    if name in ('kappa', 'lambd'):
        return getattr(pair, name).double()
    lambd = pair.lambd.double().clamp(min=LAMBDA_FLOOR)
    if name == 'eta0' or pair.kind == 'unit':
        return eta_at_zero(lambd)
    return gate_slope_at_zero(pair.kappa, lambd)


def parameter_rows(pairs: Sequence[Pair]) -> List[Row]:
    """Describe every unit and gate by numbers.

    Depth counts units and gates apart, from 1; kappa, lambda (as used), slope
    and eta0 are means over channels.

    Example:
        >>> import torch
        >>> one = torch.ones(1)
        >>> row, = parameter_rows([Pair('act1', 'unit', one, one)])
        >>> row['slope'], row['eta0']
        (0.5, 0.5)
    """
    rows = []
    depth = dict(unit=0, gate=0)
    for pair in pairs:
        depth[pair.kind] += 1
        used = pair._replace(lambd=pair.lambd.double().clamp(min=LAMBDA_FLOOR))
        rows.append(dict(
            depth=depth[pair.kind], site=pair.name, kind=pair.kind,
            values=pair.kappa.numel(),
            **{name: quantity(used, name).mean().item() for name in _MEANS}))
    return rows


def analyze(sources: Sequence[Source], settings: Settings,
            traces: Sequence[str] = ()) -> View:
    """List the parameters of some checkpoints: rows per run and site.

    ``traces`` are work directories of runs with ``ParameterTraceHook``, whose
    history is drawn; the settings have no effect.
    """
    inspected = {s.name: inspect_file(s.checkpoint) for s in sources}
    bare = [name for name, item in inspected.items() if not item.pairs]
    kept = {name: item for name, item in inspected.items() if item.pairs}
    if not kept:
        raise AnalysisError(
            f'none of {", ".join(bare)} has kappa and lambda, but APA gates '
            'or AGLU units are expected; of others attention, logits, '
            'collapse and calibration can be analysed')
    view = View('kappa and lambda over depth', TEXT,
                notes=[f'{name} has no kappa and lambda' for name in bare])
    for name, item in kept.items():
        sites = parameter_rows(item.pairs)
        view.metrics[name] = dict(sites=sites, dead=item.dead)
        view.rows += [dict(run=name, **row) for row in sites]
        if item.dead:
            view.notes.append(
                f'{name}: the lambda of {len(item.dead)} sites gets no '
                'gradient in the code that the file is of: '
                + ', '.join(item.dead[:3]))
    for (run, kind), mine in grouped(view.rows, 'run', 'kind').items():
        line = dict(run=run, kind=kind, sites=len(mine))
        for name in _MEANS:
            values = [r[name] for r in mine]
            line[name] = f'{min(values):.3f}..{max(values):.3f}'
        view.summary.append(line)
    view.pictures['parameters.png'] = partial(
        _draw_inspected, kept, quantities=tuple(QUANTITIES))
    for number, trace in enumerate(traces, 1):
        name = 'history.png' if number == 1 else f'history-{number}.png'
        view.pictures[name] = partial(draw_trace, read_trace(trace))
    view.settings = dict(traces=[osp.normpath(trace) for trace in traces])
    return view


def plot_parameters(inspections: Sequence[Inspection], path: str) -> None:
    """Draw lambda and kappa of files over depth, called by their names.

    Raises:
        CheckpointError: If no file has kappa and lambda, or matplotlib is
            not installed.
    """
    items = {osp.basename(item.path): item for item in inspections}
    if not any(item.pairs for item in items.values()):
        raise CheckpointError('none of the files has kappa and lambda to '
                              'plot; leave out --plot')
    try:
        _draw_inspected(items, path, ('lambd', 'kappa'))
    except ImportError:
        raise CheckpointError('plotting needs matplotlib; install it with '
                              '"pip install matplotlib"') from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f'{path} cannot be written: {error}') from None


def _draw_inspected(items: Mapping[str, Inspection], path: str,
                    quantities: Sequence[str]) -> None:
    """Draw the files of some runs, with the starts that their traces know."""
    draw_pairs({run: item.pairs for run, item in items.items()}, path,
               quantities, {run: starts_of(item.path, item.pairs)
                            for run, item in items.items()})


def draw_pairs(pairs: Mapping[str, Sequence[Pair]], path: str,
               quantities: Sequence[str] = ('lambd', 'kappa'),
               starts: Mapping[str, Sequence[Pair]] = {}) -> None:
    """Draw units and gates over depth; one line or row of marks per run.

    ``pairs`` go by the name of the run, ``quantities`` are the rows of the
    picture. From earlier values, ``starts``, a line leads to the later one.
    """
    columns = [c for c in _COLUMNS
               if any(p.kind == c[0] for run in pairs.values() for p in run)]
    with drawing(path, len(quantities), len(columns), 4.2, 2.6,
                 sharex='col') as (figure, axes):
        for i, name in enumerate(quantities):
            for axis, (kind, title) in zip(axes[i], columns, strict=True):
                for number, (run, found) in enumerate(pairs.items()):
                    _draw_run(axis, number, run, name,
                              [p for p in found if p.kind == kind],
                              starts.get(run, ()))
                if i == 0:
                    axis.set_title(title, loc='center')
                axis.set_ylabel(QUANTITIES[name])
                axis.xaxis.get_major_locator().set_params(integer=True)
        for axis, (kind, _) in zip(axes[-1], columns, strict=True):
            _name_sites(axis, pairs, kind)
        legend_above(figure, axes, 2)


def _draw_run(axis: object, number: int, run: str, name: str,
              pairs: Sequence[Pair], starts: Sequence[Pair]) -> None:
    values = {p.name: quantity(p, name) for p in pairs if p.kappa.numel()}
    depth = {site: x for x, site in enumerate(values, 1)}
    before = {p.name: quantity(p, name).mean().item() for p in starts
              if p.name in values}
    style = line_style(number)
    if before:
        style['linestyle'] = ''
        # Beside each other, so that two runs do not hide one another.
        depth = {site: x + 0.2 * number for site, x in depth.items()}
    axis.plot(list(depth.values()), [v.mean() for v in values.values()],
              label=f'{run} (end)' if before else run, **style)
    if before:
        x, y = [depth[site] for site in before], list(before.values())
        axis.plot(x, y, label=f'{run} (start)', markerfacecolor='none',
                  **style)
        axis.vlines(x, y, [values[site].mean() for site in before],
                    color=style['color'], linewidth=1)
    if any(v.numel() > 1 for v in values.values()):
        axis.fill_between(
            list(depth.values()), [v.min().item() for v in values.values()],
            [v.max().item() for v in values.values()], alpha=0.2)


def _name_sites(axis: object, pairs: Mapping[str, Sequence[Pair]],
                kind: str) -> None:
    """Name the sites if all runs have the same and there is room."""
    sites = {tuple(p.name for p in run if p.kind == kind and p.kappa.numel())
             for run in pairs.values()} - {()}
    names = sites.pop() if len(sites) == 1 else ()
    if not 0 < len(names) <= MAX_NAMES:
        axis.set_xlabel('depth (site number)')
        return
    short = [n.removeprefix('backbone.').removesuffix('.gate').removesuffix(
        '.attention') for n in names]
    axis.set_xticks(range(1, len(names) + 1), short, rotation=90, fontsize=7)
