"""The functions themselves and their derivatives (Fig. 3 and 4)."""
from functools import partial
from typing import Dict, List, Sequence

import torch

from apa_mm.checkpoint import inspect_file
from apa_mm.functional import aglu, apa
from apa_mm.layers.activation import LAMBDA_FLOOR
from apa_mm.layers.pairs import Pair

from .loading import Settings, Source
from .plot_style import drawing, line_style
from .runs import Row, View, grouped

#: (kappa, lambda): 1 is the sigmoid, the floor the Gumbel probability.
BY_LAMBDA = ((1., LAMBDA_FLOOR), (1., 0.5), (1., 1.), (1., 4.))
BY_KAPPA = ((-1., 1.), (0.5, 1.), (1., 1.), (3., 1.))
FUNCTIONS = dict(APA=apa, AGLU=aglu)
_SYMBOLS = dict(APA=r'$\eta(z)$', AGLU=r'$z\,\eta(z)$')
DERIVATIVES = dict(d_x=r'$\partial f / \partial z$',
                   d_kappa=r'$\partial f / \partial \kappa$',
                   d_lambda=r'$\partial f / \partial \lambda$')
CURVE = ('function', 'kappa', 'lambd')
#: From -6 to 6, an exact 0 among them.
POINTS = torch.arange(-120, 121) * 0.05
TEXT = (
    'The gate APA, eta(z) = (lambda exp(-kappa z) + 1)^(-1/lambda), and the '
    'unit AGLU, z eta(z), computed by the operators that train, with the '
    'derivatives that their backward pass returns. The derivative for '
    'lambda is the true one: Eq. 8 as printed lacks a term.')


def function_rows() -> List[Row]:
    """Evaluate both functions and their derivatives on [-6, 6].

    Example:
        >>> row = next(r for r in function_rows()
        ...            if r['lambd'] == 1 and r['kappa'] == 1 and r['x'] == 0)
        >>> row['value'], row['d_x']
        (0.5, 0.25)
    """
    rows = []
    for name, function in FUNCTIONS.items():
        for kappa, lambd in dict.fromkeys(BY_LAMBDA + BY_KAPPA):
            # One kappa and lambda per point: their gradients are the point's.
            x = POINTS.double().requires_grad_()
            k, m = (torch.full_like(x, value).requires_grad_()
                    for value in (kappa, lambd))
            y = function(x, kappa=k, lambd=m)
            points = torch.stack(
                (x, y, *torch.autograd.grad(y.sum(), (x, k, m))), dim=1)
            rows += [dict(zip((*CURVE, 'x', 'value', *DERIVATIVES),
                              (name, kappa, lambd, *values), strict=True))
                     for values in points.tolist()]
    return rows


def analyze(sources: Sequence[Source], settings: Settings) -> View:
    """Draw the functions, and the learned ones of checkpoints if any."""
    rows = function_rows()
    view = View('The functions and their derivatives', TEXT, rows=rows)
    view.pictures = {'functions.png': partial(_draw_values, rows),
                     'derivatives.png': partial(_draw_derivatives, rows)}
    learned = {}
    for source in sources:
        if pairs := inspect_file(source.checkpoint).pairs:
            learned[source.name] = pairs
        else:
            view.notes.append(f'{source.name} has no kappa and lambda')
    if learned:
        view.pictures['learned.png'] = partial(_draw_learned, learned)
    for curve, mine in grouped(rows, *CURVE).items():
        middle = min(mine, key=lambda r: abs(r['x']))
        view.summary.append(dict(
            zip(CURVE, curve, strict=True),
            at_0=middle['value'], slope_at_0=middle['d_x'],
            lowest=min(r['value'] for r in mine)))
    view.metrics = dict(curves=view.summary)
    return view


def _plot(axis: object, rows: List[Row], function: str,
          curves: Sequence[tuple], column: str, varied: str) -> None:
    for number, (kappa, lambd) in enumerate(curves):
        mine = grouped(rows, *CURVE)[function, kappa, lambd]
        value = kappa if varied == r'\kappa' else lambd
        axis.plot([r['x'] for r in mine], [r[column] for r in mine],
                  label=f'${varied} = {value:g}$', markevery=40,
                  **line_style(number))


def _draw_values(rows: List[Row], path: str) -> None:
    with drawing(path, 2, 2, 3.8, 2.6, sharex=True) as (_, axes):
        for line, function in zip(axes, FUNCTIONS, strict=True):
            for axis, curves, varied, fixed in (
                    (line[0], BY_LAMBDA, r'\lambda', r'$\kappa = 1$'),
                    (line[1], BY_KAPPA, r'\kappa', r'$\lambda = 1$')):
                _plot(axis, rows, function, curves, 'value', varied)
                axis.set(title=f'{function}, {fixed}', xlabel='z',
                         ylabel=_SYMBOLS[function])
                axis.legend(loc='best')


def _draw_derivatives(rows: List[Row], path: str) -> None:
    with drawing(path, 2, 3, 3.2, 2.5, sharex=True) as (_, axes):
        for line, function in zip(axes, FUNCTIONS, strict=True):
            for axis, (column, symbol) in zip(line, DERIVATIVES.items(),
                                              strict=True):
                _plot(axis, rows, function, BY_LAMBDA, column, r'\lambda')
                axis.set(title=rf'{function}: {symbol}, $\kappa = 1$',
                         xlabel='z')
            line[0].legend(loc='best')


def _draw_learned(pairs: Dict[str, List[Pair]], path: str) -> None:
    with drawing(path, len(pairs), 2, 3.8, 2.6, sharex=True) as (_, axes):
        for line, (run, found) in zip(axes, pairs.items(), strict=True):
            for axis, kind, name in zip(line, ('gate', 'unit'), FUNCTIONS,
                                        strict=True):
                mine = [p for p in found if p.kind == kind]
                for number, pair in enumerate(mine):
                    y = FUNCTIONS[name](
                        POINTS, kappa=float(pair.kappa.mean()),
                        lambd=max(float(pair.lambd.mean()), LAMBDA_FLOOR))
                    shade = number / max(len(mine) - 1, 1)
                    axis.plot(POINTS, y, color=str(0.75 * shade), linewidth=1,
                              linestyle='--' if shade > 0.5 else '-')
                axis.set(
                    title=f'{run}: {len(mine)} {kind}s, dark at the input',
                    xlabel='z', ylabel=_SYMBOLS[name])
