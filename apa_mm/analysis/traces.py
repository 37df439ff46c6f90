"""What ``ParameterTraceHook`` has written while a run trained."""
import json
from pathlib import Path
from typing import Dict, List, Sequence

from apa_mm.engine.hooks.parameter_trace_hook import TRACE_PREFIX
from apa_mm.layers.pairs import Pair

from .errors import AnalysisError
from .plot_style import drawing, line_style

#: By site 'step', 'kappa' and 'lambd', each a list.
Trace = Dict[str, Dict[str, list]]


def read_trace(path: str) -> Trace:
    """Read ``vis_data/scalars.json`` of a run, given that or its folder."""
    file = Path(path)
    if file.is_dir():
        files = sorted(file.glob('**/vis_data/scalars.json'))
        if not files:
            raise AnalysisError(f'{path} has no vis_data/scalars.json; name '
                                'the work directory of a training run')
        file = files[-1]
    try:
        lines = file.read_text().splitlines()
        records = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise AnalysisError(f'{file} cannot be read as scalars.json ({error});'
                            ' name one that mmengine wrote') from None
    trace: Trace = {}
    for record in records:
        for name, value in record.items():
            if not name.startswith(TRACE_PREFIX):
                continue
            site, _, leaf = name[len(TRACE_PREFIX):].rpartition('/')
            history = trace.setdefault(site, dict(step=[], kappa=[], lambd=[]))
            history[leaf].append(value)
            if leaf == 'kappa':
                history['step'].append(record['step'])
    if not trace:
        raise AnalysisError(
            f'{file} has no kappa and lambda; train with '
            "custom_hooks=[dict(type='apa_mm.ParameterTraceHook')]")
    return trace


def starts_of(checkpoint: str, pairs: Sequence[Pair]) -> List[Pair]:
    """Return the pairs with the means before the run; [] without a trace.

    The run is the one whose work directory the checkpoint lies in.
    """
    # Not deeper, as read_trace looks: the folder may be anybody's.
    files = sorted(Path(checkpoint).parent.glob('*/vis_data/scalars.json'))
    try:
        trace = read_trace(str(files[-1])) if files else {}
    except AnalysisError:
        return []
    return [pair._replace(kappa=pair.kappa.new_tensor(found['kappa'][:1]),
                          lambd=pair.kappa.new_tensor(found['lambd'][:1]))
            for pair in pairs if (found := trace.get(pair.name))]


def draw_trace(trace: Trace, path: str) -> None:
    """Draw the history of every site's kappa and lambda."""
    kinds: Dict[str, Trace] = dict(units={}, gates={})
    for site, history in trace.items():
        kind = 'gates' if 'gate' in site.split('.') else 'units'
        kinds[kind][site] = history
    kinds = {kind: sites for kind, sites in kinds.items() if sites}
    with drawing(path, len(kinds), 2, 4.2, 2.6, sharex=True) as (_, axes):
        for line, (kind, sites) in zip(axes, kinds.items(), strict=True):
            for axis, leaf, name in zip(line, ('kappa', 'lambd'),
                                        ('kappa', 'lambda'), strict=True):
                _draw_history(axis, sites, leaf)
                axis.set(title=kind, xlabel='iteration', ylabel=name)


def _draw_history(axis: object, trace: Trace, leaf: str) -> None:
    """Draw sites, dark near the input; the first and last are named."""
    last = len(trace) - 1
    for number, (site, history) in enumerate(trace.items()):
        end = number in (0, last)
        style = dict(color=str(0.75 * number / max(last, 1)), linewidth=0.8)
        if end:
            style = dict(line_style(1 if number else 0), markevery=0.25)
        axis.plot(history['step'], history[leaf],
                  label=site.removeprefix('backbone.') if end else None,
                  **style)
    axis.legend(loc='best')
