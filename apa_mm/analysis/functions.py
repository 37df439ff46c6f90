"""The functions themselves and their derivatives (Fig. 3 and 4)."""
from functools import partial
from typing import Any, Callable, Dict, List, Sequence

import torch

from apa_mm.checkpoint import inspect_file
from apa_mm.functional import aglu, apa
from apa_mm.layers.activation import LAMBDA_FLOOR
from apa_mm.layers.pairs import Pair

from .loading import Settings, Source
from .plot_style import drawing, label_axis, line_style
from .runs import View, grouped

__all__ = ['analyze', 'function_rows']

#: (kappa, lambda): 1 is the sigmoid, the floor the Gumbel probability.
BY_LAMBDA = ((1., LAMBDA_FLOOR), (1., 0.5), (1., 1.), (1., 4.))
BY_KAPPA = ((-1., 1.), (0.5, 1.), (1., 1.), (3., 1.))
FUNCTIONS = dict(APA=apa, AGLU=aglu)
DERIVATIVES = dict(
    d_x=r'$\partial f / \partial z$',
    d_kappa=r'$\partial f / \partial \kappa$',
    d_lambda=r'$\partial f / \partial \lambda$')
CURVE = ('function', 'kappa', 'lambd')
#: Points from -6 to 6, an exact 0 among them.
STEPS = 120
RANGE = 6.
TEXT = (
    'The gate APA, eta(z) = (lambda exp(-kappa z) + 1)^(-1/lambda), and the '
    'unit AGLU, z eta(z), computed by the operators that train, with the '
    'derivatives that their backward pass returns. The derivative for '
    'lambda is the true one: Eq. 8 as printed lacks a term.')


def function_rows() -> List[Dict[str, Any]]:
    """Evaluate both functions and their derivatives.

    Returns:
        list[dict]: 'function', 'kappa', 'lambd', 'x', 'value', 'd_x',
        'd_kappa' and 'd_lambda' on [-6, 6].

    Example:
        >>> row = next(r for r in function_rows()
        ...            if r['lambd'] == 1 and r['kappa'] == 1 and r['x'] == 0)
        >>> row['value'], row['d_x']
        (0.5, 0.25)
    """
    rows = []
    for name in FUNCTIONS:
        for kappa, lambd in dict.fromkeys(BY_LAMBDA + BY_KAPPA):
            columns = _evaluate(name, kappa, lambd)
            rows += [
                dict(function=name, kappa=kappa, lambd=lambd,
                     **dict(zip(columns, values, strict=True)))
                for values in zip(*columns.values(), strict=True)
            ]
    return rows


def _points() -> torch.Tensor:
    return torch.arange(-STEPS, STEPS + 1) * (RANGE / STEPS)


def _evaluate(name: str, kappa: float, lambd: float) -> Dict[str, list]:
    x = _points().double()
    # One kappa and lambda per point: their gradients are those of the point.
    k, m = (torch.full_like(x, v).requires_grad_() for v in (kappa, lambd))
    x.requires_grad_()
    value = FUNCTIONS[name](x, kappa=k, lambd=m)
    gradients = torch.autograd.grad(value.sum(), (x, k, m))
    columns = dict(x=x, value=value)
    columns.update(zip(DERIVATIVES, gradients, strict=True))
    return {key: column.tolist() for key, column in columns.items()}


def analyze(sources: Sequence[Source], settings: Settings) -> View:
    """Draw the functions, and the learned ones of checkpoints if any."""
    rows = function_rows()
    pictures: Dict[str, Callable[[str], None]] = {
        'functions.png': partial(_draw_values, rows),
        'derivatives.png': partial(_draw_derivatives, rows)
    }
    pairs = {s.name: inspect_file(s.checkpoint).pairs for s in sources}
    notes = [f'{name} has no kappa and lambda' for name in pairs
             if not pairs[name]]
    pairs = {name: found for name, found in pairs.items() if found}
    if pairs:
        pictures['learned.png'] = partial(_draw_learned, pairs)
    summary = []
    for curve, mine in grouped(rows, *CURVE).items():
        middle = min(mine, key=lambda r: abs(r['x']))
        summary.append(dict(
            zip(CURVE, curve, strict=True),
            at_0=middle['value'], slope_at_0=middle['d_x'],
            lowest=min(r['value'] for r in mine)))
    return View(
        title='The functions and their derivatives',
        text=TEXT,
        metrics=dict(curves=summary),
        rows=rows,
        summary=summary,
        pictures=pictures,
        notes=notes)


def _plot(axis: object, rows: List[Dict[str, Any]], function: str,
          curves: Sequence[tuple], column: str, varied: str) -> None:
    for number, (kappa, lambd) in enumerate(curves):
        mine = grouped(rows, *CURVE)[function, kappa, lambd]
        value = lambd if varied == 'lambd' else kappa
        symbol = r'\lambda' if varied == 'lambd' else r'\kappa'
        axis.plot([r['x'] for r in mine], [r[column] for r in mine],
                  label=f'${symbol} = {value:g}$', markevery=40,
                  **line_style(number))


def _draw_values(rows: List[Dict[str, Any]], path: str) -> None:
    with drawing(path, 2, 2, 3.8, 2.6, sharex=True) as (_, axes):
        for line, function in zip(axes, FUNCTIONS, strict=True):
            for axis, curves, varied, fixed in (
                    (line[0], BY_LAMBDA, 'lambd', r'$\kappa = 1$'),
                    (line[1], BY_KAPPA, 'kappa', r'$\lambda = 1$')):
                _plot(axis, rows, function, curves, 'value', varied)
                label_axis(axis, f'{function}, {fixed}', 'z',
                           r'$\eta(z)$' if function == 'APA' else
                           r'$z\,\eta(z)$')
                axis.legend(loc='best')


def _draw_derivatives(rows: List[Dict[str, Any]], path: str) -> None:
    with drawing(path, 2, 3, 3.2, 2.5, sharex=True) as (_, axes):
        for line, function in zip(axes, FUNCTIONS, strict=True):
            for axis, (column, symbol) in zip(line, DERIVATIVES.items(),
                                              strict=True):
                _plot(axis, rows, function, BY_LAMBDA, column, 'lambd')
                label_axis(axis, rf'{function}: {symbol}, $\kappa = 1$', 'z')
            line[0].legend(loc='best')


def _draw_learned(pairs: Dict[str, List[Pair]], path: str) -> None:
    x = _points()
    with drawing(path, len(pairs), 2, 3.8, 2.6, sharex=True) as (_, axes):
        for line, (run, found) in zip(axes, pairs.items(), strict=True):
            for axis, kind, function in ((line[0], 'gate', apa),
                                         (line[1], 'unit', aglu)):
                mine = [p for p in found if p.kind == kind]
                for number, pair in enumerate(mine):
                    y = function(
                        x, kappa=float(pair.kappa.mean()),
                        lambd=max(float(pair.lambd.mean()), LAMBDA_FLOOR))
                    shade = number / max(len(mine) - 1, 1)
                    axis.plot(x, y, color=str(0.75 * shade), linewidth=1,
                              linestyle='--' if shade > 0.5 else '-')
                label_axis(
                    axis, f'{run}: {len(mine)} {kind}s, dark at the input',
                    'z', r'$\eta(z)$' if kind == 'gate' else r'$z\,\eta(z)$')
