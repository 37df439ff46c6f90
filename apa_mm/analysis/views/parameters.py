"""kappa, lambda and what follows from them, over depth and training."""
import os.path as osp
from functools import partial
from typing import Any, Callable, Dict, List, Sequence

import numpy as np

from apa_mm.analysis.errors import AnalysisError
from apa_mm.analysis.loading import Settings, Source
from apa_mm.analysis.parameters import parameter_rows, read_trace
from apa_mm.analysis.runs import View
from apa_mm.checkpoint import Inspection, inspect_file
from apa_mm.analysis.parameter_plot import plot_parameters
from apa_mm.analysis.plot_style import drawing, label_axis, line_style

__all__ = ['analyze', 'draw_trace']

TEXT = (
    'kappa and lambda of every unit (AGLU) and gate (APA) from input to '
    'output, and the shapes they make: eta(0) = (1 + lambda)^(-1/lambda) '
    'is a gate\'s value and a unit\'s slope at 0 (1/2 for the sigmoid, 1/e '
    'for the Gumbel probability); a gate\'s slope at 0 is kappa '
    '(1 + lambda)^(-1/lambda - 1), negative if a larger input shuts it. '
    'Values per channel are drawn as their mean and range.')


def analyze(sources: Sequence[Source], settings: Settings,
            traces: Sequence[str] = ()) -> View:
    """List the parameters of some checkpoints.

    Args:
        sources (Sequence[Source]): Checkpoints to overlay; those without
            kappa and lambda are named in the notes.
        settings (Settings): Has no effect: no image is looked at.
        traces (Sequence[str]): Work directories of runs with
            ``ParameterTraceHook``, whose history is drawn.

    Returns:
        View: Rows per run and site.

    Raises:
        AnalysisError: If no checkpoint has kappa and lambda.
        CheckpointError: If a file cannot be read.
    """
    found = {s.name: inspect_file(s.checkpoint) for s in sources}
    bare = [name for name, item in found.items() if not item.pairs]
    kept = {name: item for name, item in found.items() if item.pairs}
    if not kept:
        raise AnalysisError(
            f'none of {", ".join(bare)} has kappa and lambda, but a network '
            'with APA gates or AGLU units is expected; of others attention, '
            'logits, collapse and calibration can be analysed')
    rows = [
        dict(run=name, **row) for name, item in kept.items()
        for row in parameter_rows(item.pairs)
    ]
    pictures: Dict[str, Callable[[str], None]] = {
        'parameters.png': partial(_draw, kept)
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


def _draw(kept: Dict[str, Inspection], path: str) -> None:
    plot_parameters(
        list(kept.values()), path, ('lambd', 'kappa', 'eta0', 'slope'),
        list(kept))


def _summary(rows: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    summary = []
    for run, kind in dict.fromkeys((r['run'], r['kind']) for r in rows):
        mine = [r for r in rows if (r['run'], r['kind']) == (run, kind)]
        line = dict(run=run, kind=kind, sites=len(mine))
        for name in ('kappa', 'lambd', 'slope', 'eta0'):
            values = [r[name] for r in mine]
            line[name] = f'{min(values):.3f}..{max(values):.3f}'
        summary.append(line)
    return summary


def draw_trace(trace: Dict[str, Dict[str, list]], path: str) -> None:
    """Draw the history of every site's kappa and lambda.

    Args:
        trace (dict): As :func:`~apa_mm.analysis.parameters.read_trace`
            returns it.
        path (str): PNG to write.
    """
    with drawing(path, *_grid(trace), **_CELL) as (_, axes):
        _fill(axes, trace)


_CELL = dict(width=4.2, height=2.6, sharex=True)


def _kinds(trace: Dict[str, Dict[str, list]]) -> Dict[str, List[str]]:
    """Return the sites by kind, without kinds that have none."""
    kinds: Dict[str, List[str]] = dict(units=[], gates=[])
    for site in trace:
        kinds['gates' if 'gate' in site.split('.') else 'units'].append(site)
    return {kind: sites for kind, sites in kinds.items() if sites}


def _grid(trace: Dict[str, Dict[str, list]]) -> tuple:
    return len(_kinds(trace)), 2


def _fill(axes: np.ndarray, trace: Dict[str, Dict[str, list]]) -> None:
    for line, (kind, sites) in zip(axes, _kinds(trace).items(), strict=True):
        for axis, leaf in zip(line, ('kappa', 'lambd'), strict=True):
            _draw_history(axis, {s: trace[s] for s in sites}, leaf)
            label_axis(axis, kind, 'iteration',
                       'lambda' if leaf == 'lambd' else leaf)


def _draw_history(axis: object, trace: Dict[str, Dict[str, list]],
                  leaf: str) -> None:
    """Draw one parameter of several sites; the first and the last are named.

    Sites near the input are dark, those near the output light.
    """
    sites = list(trace)
    for number, site in enumerate(sites):
        end = number in (0, len(sites) - 1)
        style = dict(color=str(0.75 * number / max(len(sites) - 1, 1)),
                     linewidth=0.8)
        if end:
            style = dict(line_style(1 if number else 0), markevery=0.25)
        axis.plot(trace[site]['step'], trace[site][leaf],
                  label=site.removeprefix('backbone.') if end else None,
                  **style)
    axis.legend(loc='best')
