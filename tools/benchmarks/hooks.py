"""What the analysis hooks add to training and validation.

A ResNet-18 with APA* gates and AGLU units, 8 images of 64 x 64 pixels, an
iteration far shorter than any in practice. The cost of an entry and of
a batch that is listened to is measured alone and spread over the default
interval; 'ours' is the iteration with the hook, 'theirs' without.
"""
import time
from statistics import median
from types import SimpleNamespace
from typing import Callable, List

import torch
from torch import nn

from apa_mm.backbones import APAResNet
from apa_mm.engine.hooks import AttentionStatsHook, ParameterTraceHook

TITLE = 'Analysis hooks at their default intervals'
BATCH, SIZE = 8, 64


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Return the median time of a call; the first one does not count."""
    call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return median(times)


def _runner(model: nn.Module) -> SimpleNamespace:
    ignore = SimpleNamespace(
        add_scalars=lambda *a, **k: None, add_image=lambda *a, **k: None,
        info=lambda text: None, warning=lambda text: None)
    return SimpleNamespace(model=model, iter=0, visualizer=ignore,
                           logger=ignore)


def _row(case: str, iteration: float, extra: float, note: str) -> dict:
    return dict(
        case=case,
        ours=(iteration + extra) * 1e3,
        theirs=iteration * 1e3,
        ratio=iteration / (iteration + extra),
        unit='ms',
        note=f'adds {100 * extra / iteration:.2f} % ({note})')


def run(repeats: int = 5, quick: bool = False) -> List[dict]:
    """Measure both hooks.

    Args:
        repeats (int): Calls whose median counts.
        quick (bool): Has no effect; there is no long case.

    Returns:
        list[dict]: Rows with 'case', 'ours', 'theirs', 'ratio', 'unit' and
        'note'.
    """
    torch.manual_seed(0)
    model = APAResNet(depth=18)
    x = torch.rand(BATCH, 3, SIZE, SIZE)
    runner = _runner(model)

    def train() -> None:
        model.zero_grad()
        model(x)[-1].square().mean().backward()

    def validate() -> None:
        with torch.no_grad():
            model(x)

    return [_trace(runner, seconds(train, repeats), repeats),
            _stats(runner, model, validate, repeats)]


def _trace(runner: SimpleNamespace, iteration: float, repeats: int) -> dict:
    hook = ParameterTraceHook()
    hook.before_train(runner)
    steps = iter(range(1, 10**6))
    entry = seconds(lambda: hook._enter(runner, next(steps)), 20 * repeats)
    idle = seconds(lambda: hook.after_train_iter(runner, 0), 100 * repeats)
    extra = idle + entry / hook.interval
    return _row(
        f'ParameterTraceHook, every {hook.interval} iterations', iteration,
        extra, f'entry {entry * 1e3:.2f} ms')


def _stats(runner: SimpleNamespace, model: nn.Module,
           validate: Callable[[], None], repeats: int) -> dict:
    hook = AttentionStatsHook()
    model.eval()
    iteration = seconds(validate, repeats)
    hook._before_epoch(runner, 'val')
    hook._before_iter(runner, 0, None, 'val')
    validate()
    caught = list(hook._caught)

    def around(batch: int) -> None:
        hook._before_iter(runner, batch, None, 'val')
        if batch == 0:
            hook._caught += caught
        hook._after_iter(runner, batch, None, None, 'val')

    heard = seconds(lambda: around(0), 10 * repeats)
    idle = seconds(lambda: around(1), 10 * repeats)
    extra = idle + heard / hook.interval
    return _row(
        f'AttentionStatsHook, every {hook.interval} batches', iteration,
        extra, f'a batch that is listened to {heard * 1e3:.2f} ms, '
        f'{len(hook._gates)} gates')
