"""kappa, lambda and the shapes they make, over depth (Fig. 6)."""
import json
import math
from pathlib import Path
from typing import Dict, List, Sequence

from torch import Tensor

from apa_mm.engine.hooks.parameter_trace_hook import TRACE_PREFIX
from apa_mm.functional.shape import eta_at_zero, gate_slope_at_zero
from apa_mm.layers.activation import LAMBDA_FLOOR
from apa_mm.layers.pairs import Pair

from .errors import AnalysisError

__all__ = ['parameter_rows', 'read_trace']


def parameter_rows(pairs: Sequence[Pair]) -> List[Dict[str, object]]:
    """Describe every unit and gate by numbers.

    Args:
        pairs (Sequence[Pair]): As
            :func:`apa_mm.layers.pairs.parameter_pairs` returns them.

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
        lambd = pair.lambd.double().clamp(min=LAMBDA_FLOOR)
        eta0 = eta_at_zero(lambd)
        slope = eta0 if pair.kind == 'unit' else gate_slope_at_zero(
            pair.kappa, lambd)
        rows.append(
            dict(
                depth=depth[pair.kind],
                site=pair.name,
                kind=pair.kind,
                values=pair.kappa.numel(),
                kappa=_mean(pair.kappa),
                lambd=_mean(lambd),
                slope=_mean(slope),
                eta0=_mean(eta0)))
    return rows


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if values.numel() else math.nan


def read_trace(path: str) -> Dict[str, Dict[str, list]]:
    """Read the history that ``ParameterTraceHook`` left in a run.

    Args:
        path (str): ``vis_data/scalars.json`` of a run, or the run's folder.

    Returns:
        dict[str, dict[str, list]]: 'step', 'kappa' and 'lambd' by site.

    Raises:
        AnalysisError: If there is no such file or nothing of the hook in it.
    """
    found = Path(path)
    if found.is_dir():
        files = sorted(found.glob('**/vis_data/scalars.json'))
        if not files:
            raise AnalysisError(f'{path} has no vis_data/scalars.json; name '
                                'the work directory of a training run')
        found = files[-1]
    try:
        lines = found.read_text().splitlines()
        records = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise AnalysisError(f'{found} cannot be read as scalars.json '
                            f'({error}); name one that mmengine wrote'
                            ) from None
    trace: Dict[str, Dict[str, list]] = {}
    for record in records:
        for name, value in record.items():
            if not name.startswith(TRACE_PREFIX):
                continue
            site, _, leaf = name[len(TRACE_PREFIX):].rpartition('/')
            lines_of = trace.setdefault(site, dict(step=[], kappa=[],
                                                   lambd=[]))
            lines_of[leaf].append(value)
            if leaf == 'kappa':
                lines_of['step'].append(record['step'])
    if not trace:
        raise AnalysisError(
            f'{found} has no kappa and lambda; train with '
            "custom_hooks=[dict(type='apa_mm.ParameterTraceHook')]")
    return trace
