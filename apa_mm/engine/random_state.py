"""Random numbers and the place in the data, for a run that goes on."""
import random
from itertools import islice
from typing import Any, Callable, Dict, Iterator

import numpy as np
import torch
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader

__all__ = ['go_on_in_data', 'random_state', 'set_random_state']


def random_state() -> Dict[str, Any]:
    """Return the state of all generators of this process.

    Numbers and tensors alone, so that torch reads it with
    ``weights_only=True``.
    """
    kind, keys, *rest = np.random.get_state()
    state = dict(python=random.getstate(),
                 numpy=(kind, torch.from_numpy(keys.astype(np.int64)), *rest),
                 torch=torch.get_rng_state())
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Dict[str, Any]) -> None:
    """Put all generators where :func:`random_state` found them."""
    random.setstate(state['python'])
    kind, keys, *rest = state['numpy']
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


def go_on_in_data(loop: Any, restore: Callable[[], None]) -> None:
    """Let a resumed loop go on with the batch that comes next.

    ``restore`` puts the generators where they were, in front of that batch.
    Those trained on are read once more and dropped, since their transforms
    move the generators of the workers. Call it before the loop runs.
    """
    if not isinstance(loop, EpochBasedTrainLoop):
        # The loop itself drops the first ``loop.iter`` batches.
        loop.dataloader_iterator = _after(loop.dataloader_iterator, loop.iter,
                                          restore)
        return
    done = loop.iter - loop.epoch * len(loop.dataloader)
    if 0 < done <= len(loop.dataloader):
        loop.dataloader = _RestOfEpoch(loop, done, restore)
    else:
        restore()


def _after(batches: Iterator, count: int,
           restore: Callable[[], None]) -> Iterator:
    yield from islice(batches, count)
    restore()
    yield from batches


class _RestOfEpoch:
    """A dataloader without its first batches; for one epoch only."""

    def __init__(self, loop: Any, done: int,
                 restore: Callable[[], None]) -> None:
        self._loop, self._done, self._restore = loop, done, restore
        self._loader: DataLoader = loop.dataloader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader) - self._done

    def __iter__(self) -> Iterator:
        batches = iter(self._loader)
        for _ in islice(batches, self._done):
            pass
        self._restore()
        yield from batches
        self._loop.dataloader = self._loader
