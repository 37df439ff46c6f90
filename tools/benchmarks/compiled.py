"""What torch.compile makes of AGLU between other operations."""
from contextlib import contextmanager
from typing import Callable, Iterator, List, Tuple
from unittest import mock

import torch
from torch import Tensor
from torch._inductor import config
from torch._inductor.graph import GraphLowering

from .act import _row, activations, two_medians

TITLE = 'Compiled 3 * AGLU(2 * x + 1) (theirs: the row\'s other activation)'
SIZE = (8, 256, 56, 56)
QUICK_SIZE = (1000, 100)
WAYS = ('forward, without gradients', 'forward', 'backward')


@contextmanager
def counted(graphs: List[Tuple[int, int]]) -> Iterator[None]:
    """Add kernels, and bytes they read and write, of each graph compiled.

    Counted by Inductor's scheduler; the call of an operator it cannot see
    into is a kernel.
    """
    generate = GraphLowering.codegen

    def codegen(graph: GraphLowering) -> object:
        code = generate(graph)
        size, nodes, _ = graph.count_bytes()
        graphs.append((sum(moved > 0 for _, moved in nodes), size))
        return code

    with mock.patch.object(GraphLowering, 'codegen', codegen), \
            config.patch(force_disable_caches=True):
        yield


def compiled(activation: Callable, x: Tensor) -> Tuple[Callable, list]:
    """Return the compiled function, and kernels and bytes of each way."""

    def function(x: Tensor) -> Tensor:
        return 3 * activation(2 * x + 1)

    torch._dynamo.reset()
    run, graphs = torch.compile(function, fullgraph=True), []
    with counted(graphs):
        with torch.no_grad():
            run(x)
        run(x.detach().requires_grad_()).sum().backward()
    return run, graphs


def run(repeats: int = 5, quick: bool = False) -> list:
    """Return rows of kernels, bytes per element and time.

    Args:
        repeats (int): Runs of which the median counts.
        quick (bool): Take a small tensor.

    Returns:
        list[dict]: Rows with 'case', 'ours', 'theirs', 'ratio', 'unit',
        'note'.
    """
    x = torch.randn(QUICK_SIZE if quick else SIZE)
    kinds = activations()
    found = {name: compiled(kinds[name], x)
             for name in ('ours', 'torch.library', 'SiLU') if name in kinds}
    functions = {name: function for name, (function, _) in found.items()}
    functions['ours in eager mode'] = lambda x: 3 * kinds['ours'](2 * x + 1)
    times = two_medians(x.shape, repeats, 'cpu', functions)
    _, ours = found.pop('ours')
    rows = []
    for name, (_, theirs) in found.items():
        for way, mine, other in zip(WAYS, ours, theirs, strict=True):
            rows.append(_row(f'{way}, vs {name}', mine[0], other[0],
                             'kernels'))
            rows.append(_row(f'{way}, vs {name}', mine[1] / x.numel(),
                             other[1] / x.numel(), 'bytes per element'))
    mine = times.pop('ours')
    for name, theirs in times.items():
        for i, way in enumerate(WAYS[1:]):
            rows.append(_row(f'{way}, vs {name}', mine[i] * 1e3,
                             theirs[i] * 1e3, 'ms'))
    return rows
