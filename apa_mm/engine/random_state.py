"""Random numbers and the place in the data, for a run that goes on."""
import random
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

import numpy as np
import torch
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader


def random_state() -> Dict[str, Any]:
    """Return the state of this process's generators, numbers and tensors."""
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
        # The loop itself drops the first ``loop.iter`` batches, all there are
        # if nothing is left to train.
        loop.dataloader_iterator = repeat(None) if (
            loop.iter >= loop.max_iters) else _after(
                loop.dataloader_iterator, loop.iter, restore)
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


def start_workers_anew(loader: Any, *seeds: int) -> None:
    """Let workers that outlive an epoch begin each with seeds of its own.

    What they drew before is in no checkpoint. ``seeds`` are non-negative and
    tell the run, the epoch and the process apart.
    """
    loader = getattr(loader, '_loader', loader)
    if getattr(loader, 'persistent_workers', False):
        own = loader.worker_init_fn
        loader.worker_init_fn = _Seeds(getattr(own, 'before', own), seeds)
        loader._iterator = None


@dataclass
class _Seeds:
    """Seeds a worker, after what was there ``before``."""

    before: Optional[Callable[[int], None]]
    seeds: Tuple[int, ...]

    def __call__(self, worker: int) -> None:
        if self.before is not None:
            self.before(worker)
        words = np.random.SeedSequence((*self.seeds, worker)).generate_state(3)
        random.seed(int(words[0]))
        np.random.seed(words[1])
        torch.manual_seed(int(words[2]))


class _RestOfEpoch:
    """A dataloader without its first batches; for one epoch only."""

    def __init__(self, loop: Any, done: int, restore: Callable[[], None]
                 ) -> None:
        self._loop, self._done, self._restore = loop, done, restore
        self._loader: DataLoader = loop.dataloader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader) - self._done

    def __iter__(self) -> Iterator:
        batches = _after(iter(self._loader), self._done, self._restore)
        yield from islice(batches, self._done, None)
        self._loop.dataloader = self._loader
