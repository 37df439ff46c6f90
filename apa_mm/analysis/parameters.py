"""kappa, lambda and what follows from them, over depth and training (Fig. 6).

Where a run has a trace of ``ParameterTraceHook`` beside its checkpoint, each
site shows where it started and where it ended, joined by a line.
"""
import math
import os.path as osp
from functools import partial
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from torch import Tensor

from apa_mm.checkpoint import Inspection, inspect_file
from apa_mm.functional.apa import eta_at_zero, gate_slope_at_zero
from apa_mm.layers.activation import LAMBDA_FLOOR
from apa_mm.layers.pairs import Pair
from apa_mm.weights.errors import CheckpointError

from .errors import AnalysisError
from .loading import Settings, Source
from .plot_style import drawing, label_axis, line_style
from .runs import View, grouped
from .traces import draw_trace, read_trace, starts_of

__all__ = [
    'QUANTITIES', 'analyze', 'draw_pairs', 'parameter_rows',
    'plot_parameters', 'quantity'
]

#: What can be drawn, and how it is called.
QUANTITIES = dict(
    lambd=r'$\lambda$',
    kappa=r'$\kappa$',
    eta0=r'$\eta(0)$',
    slope='slope at 0')
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

    Stored values of kappa and lambda are returned as they are; the others
    follow from lambda as used, that is not below its floor.
    """
    if name in ('kappa', 'lambd'):
        return getattr(pair, name).double()
    lambd = pair.lambd.double().clamp(min=LAMBDA_FLOOR)
    if name == 'eta0' or pair.kind == 'unit':
        return eta_at_zero(lambd)
    return gate_slope_at_zero(pair.kappa, lambd)


def parameter_rows(pairs: Sequence[Pair]) -> List[Dict[str, object]]:
    """Describe every unit and gate by numbers.

    Returns:
        list[dict]: 'depth' (from 1, units and gates counted apart), 'site',
        'kind', 'values' (their number) and means over channels of 'kappa',
        'lambd' (as used: not below the floor), 'slope' (at 0) and 'eta0'.

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
            **{name: _mean(quantity(used, name))
               for name in ('kappa', 'lambd', 'slope', 'eta0')}))
    return rows


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if values.numel() else math.nan


def analyze(sources: Sequence[Source], settings: Settings,
            traces: Sequence[str] = ()) -> View:
    """List the parameters of some checkpoints: rows per run and site.

    Args:
        sources (Sequence[Source]): Checkpoints to overlay; those without
            kappa and lambda are named in the notes.
        settings (Settings): Has no effect: no image is looked at.
        traces (Sequence[str]): Work directories of runs with
            ``ParameterTraceHook``, whose history is drawn.

    Raises:
        AnalysisError: If no checkpoint has kappa and lambda.
    """
    inspected = {s.name: inspect_file(s.checkpoint) for s in sources}
    bare = [name for name, item in inspected.items() if not item.pairs]
    kept = {name: item for name, item in inspected.items() if item.pairs}
    if not kept:
        raise AnalysisError(
            f'none of {", ".join(bare)} has kappa and lambda, but a network '
            'with APA gates or AGLU units is expected; of others attention, '
            'logits, collapse and calibration can be analysed')
    pairs = {name: item.pairs for name, item in kept.items()}
    rows = [dict(run=name, **row) for name, found in pairs.items()
            for row in parameter_rows(found)]
    starts = {s.name: starts_of(s.checkpoint, pairs[s.name])
              for s in sources if s.name in pairs}
    pictures: Dict[str, Callable[[str], None]] = {
        'parameters.png': partial(
            draw_pairs, pairs, quantities=('lambd', 'kappa', 'eta0', 'slope'),
            starts=starts)
    }
    for number, trace in enumerate(traces):
        name = 'history.png' if number == 0 else f'history-{number + 1}.png'
        pictures[name] = partial(draw_trace, read_trace(trace))
    return View(
        title='kappa and lambda over depth',
        text=TEXT,
        metrics={name: dict(sites=parameter_rows(item.pairs), dead=item.dead)
                 for name, item in kept.items()},
        rows=rows,
        summary=_summary(rows),
        pictures=pictures,
        notes=_notes(kept, bare),
        settings=dict(traces=[osp.normpath(trace) for trace in traces]))


def _notes(kept: Dict[str, Inspection], bare: List[str]) -> List[str]:
    notes = [f'{name} has no kappa and lambda' for name in bare]
    return notes + [
        f'{name}: the lambda of {len(item.dead)} sites gets no gradient in '
        'the code that the file is of: ' + ', '.join(item.dead[:3])
        for name, item in kept.items() if item.dead
    ]


def _summary(rows: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    summary = []
    for (run, kind), mine in grouped(rows, 'run', 'kind').items():
        line = dict(run=run, kind=kind, sites=len(mine))
        for name in ('kappa', 'lambd', 'slope', 'eta0'):
            values = [r[name] for r in mine]
            line[name] = f'{min(values):.3f}..{max(values):.3f}'
        summary.append(line)
    return summary


def plot_parameters(inspections: Sequence[Inspection], path: str) -> None:
    """Draw lambda and kappa of files over depth, called by their names.

    Raises:
        CheckpointError: If no file has kappa and lambda, or matplotlib is
            not installed.
    """
    pairs = {osp.basename(item.path): item.pairs for item in inspections}
    if not any(pairs.values()):
        raise CheckpointError('none of the files has kappa and lambda to '
                              'plot; leave out --plot')
    starts = {osp.basename(item.path): starts_of(item.path, item.pairs)
              for item in inspections}
    try:
        draw_pairs(pairs, path, starts=starts)
    except ImportError:
        raise CheckpointError('plotting needs matplotlib; install it with '
                              '"pip install matplotlib"') from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f'{path} cannot be written: {error}') from None


def draw_pairs(pairs: Mapping[str, Sequence[Pair]],
               path: str,
               quantities: Sequence[str] = ('lambd', 'kappa'),
               starts: Optional[Mapping[str, Sequence[Pair]]] = None) -> None:
    """Draw units and gates over depth; one line or row of marks per run.

    Args:
        pairs (Mapping[str, Sequence[Pair]]): By the name of the run.
        path (str): PNG to write.
        quantities (Sequence[str]): Rows of the picture, of
            :data:`QUANTITIES`.
        starts (Mapping[str, Sequence[Pair]], optional): Earlier values; each
            is joined by a line to the later one of its site.
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
                              (starts or {}).get(run, ()))
                if i == 0:
                    axis.set_title(title)
                axis.set_ylabel(QUANTITIES[name])
                axis.xaxis.get_major_locator().set_params(integer=True)
        for axis, (kind, _) in zip(axes[-1], columns, strict=True):
            _name_sites(axis, pairs, kind)
        # Outside: random-looking lines leave no free corner.
        figure.legend(*axes[0][0].get_legend_handles_labels(),
                      loc='outside upper center', ncols=2)


def _draw_run(axis: object, number: int, run: str, name: str,
              pairs: Sequence[Pair], starts: Sequence[Pair]) -> None:
    values = {p.name: quantity(p, name) for p in pairs if p.kappa.numel()}
    depth = dict(zip(values, range(1, len(values) + 1), strict=True))
    before = {p.name: _mean(quantity(p, name)) for p in starts
              if p.name in values}
    style = line_style(number)
    if before:
        style['linestyle'] = ''
        # Beside each other, so that two runs do not hide one another.
        depth = {site: x + 0.2 * number for site, x in depth.items()}
    axis.plot(list(depth.values()), [_mean(v) for v in values.values()],
              label=f'{run} (end)' if before else run, **style)
    if before:
        axis.plot([depth[site] for site in before], list(before.values()),
                  label=f'{run} (start)', markerfacecolor='none', **style)
        axis.vlines([depth[site] for site in before], list(before.values()),
                    [_mean(values[site]) for site in before],
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
        label_axis(axis, x='depth (site number)')
        return
    short = [n.removeprefix('backbone.').removesuffix('.gate').removesuffix(
        '.attention') for n in names]
    axis.set_xticks(range(1, len(names) + 1), short, rotation=90, fontsize=7)
