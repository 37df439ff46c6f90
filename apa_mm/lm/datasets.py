"""Token shards and HellaSwag's endings as data sets of sequences."""
import json
from bisect import bisect_right
from functools import lru_cache
from glob import glob
from itertools import accumulate
from typing import Dict, Optional

import numpy as np
import torch
from torch.utils.data import Dataset

from apa_mm.registry import DATASETS
from apa_mm.utils.checks import InputError

from .tokenizers import build_tokenizer


class _Sequences(Dataset):
    """What mmengine's ConcatDataset asks of a member."""

    metainfo: Dict[str, str] = {}

    def full_init(self) -> None:
        """Do nothing: the constructor does all."""


# By name, so that a worker gets no copy of the tokens.
@lru_cache(maxsize=None)
def open_shard(path: str) -> np.ndarray:
    """Map a shard of tokens: 1-D uint16, ``.npy``.

    Raises:
        InputError: If the file cannot be read, or holds something else.
    """
    try:
        tokens = np.load(path, mmap_mode='r', allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f'shard {path} cannot be read: {error}') from error
    if tokens.dtype != np.uint16 or tokens.ndim != 1:
        raise InputError(
            f'shard {path} must hold uint16 of shape (tokens,), but holds '
            f'{tokens.dtype} of shape {tokens.shape}; write shards by '
            'tools/prepare_tokens.py')
    return tokens


@DATASETS.register_module()
class TokenShards(_Sequences):
    """Windows over token shards, in the order of their names.

    A window has one token more than GPT-2 sees, the last one to be foretold;
    the next one begins with it. What is left of a shard is left out. A
    sampler that does not shuffle gives every step the same tokens, however
    many ranks share them. ``shards`` is a pattern of ``.npy`` files,
    ``length`` the tokens that the model sees of a window; ``max_windows``
    takes only so many, from the beginning.

    Raises:
        InputError: If no file matches, one is no shard, or none is as long
            as a window.
    """

    def __init__(self, shards: str, length: int = 1024,
                 max_windows: Optional[int] = None) -> None:
        self.paths, self.length = sorted(glob(shards)), length
        self.ends = list(accumulate(
            max(len(open_shard(path)) - 1, 0) // length
            for path in self.paths))
        if not self.ends or not self.ends[-1]:
            raise InputError(
                f'{shards} matches {len(self.paths)} files with no window of '
                f'{length} + 1 tokens; write them by tools/prepare_tokens.py')
        self.size = min(self.ends[-1], max_windows or self.ends[-1])

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < self.size:
            raise IndexError(f'window {index} of {self.size}')
        shard = bisect_right(self.ends, index)
        start = (index - (self.ends[shard - 1] if shard else 0)) * self.length
        window = open_shard(self.paths[shard])[start:start + self.length + 1]
        # The keys of HellaSwag's: a batch of both has those of its first.
        return dict(tokens=torch.from_numpy(window.astype(np.int64)),
                    first=1, item=-1, ending=-1, label=-1)


@DATASETS.register_module()
class HellaSwagEndings(_Sequences):
    """HellaSwag, each ending behind its context a sequence of its own.

    Args:
        path (str): File with a JSON object per line: ``ctx``, ``endings``
            (four texts) and ``label`` (number of the right one, from 0).
        tokenizer (dict): Of :func:`~apa_mm.lm.tokenizers.build_tokenizer`.
        length (int): Tokens that the model sees; a longer context loses its
            beginning.

    Raises:
        InputError: If the file or a line of it is no such thing.
    """

    def __init__(self, path: str, tokenizer: dict,
                 length: int = 1024) -> None:
        self.tokenizer, self.length = build_tokenizer(**tokenizer), length
        try:
            with open(path, encoding='utf-8') as file:
                self.items = [_item(path, number, line) for number, line
                              in enumerate(file, 1) if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f'HellaSwag {path} cannot be read: '
                             f'{error}') from error
        if not self.items:
            raise InputError(f'HellaSwag {path} holds no items; name the '
                             'hellaswag_val.jsonl of its authors')

    def __len__(self) -> int:
        return 4 * len(self.items)

    def __getitem__(self, index: int) -> dict:
        number, ending = divmod(index, 4)
        context, endings, label = self.items[number]
        behind = self.tokenizer.encode(' ' + endings[ending])[-self.length:]
        # Without a context the separator stands before the ending.
        before = self.tokenizer.encode(context) or [self.tokenizer.end]
        before = before[-(self.length + 1 - len(behind)):]
        return dict(tokens=torch.tensor(before + behind), first=len(before),
                    item=number, ending=ending, label=label)


def _item(path: str, number: int, line: str) -> tuple:
    try:
        item = json.loads(line)
        found = str(item['ctx']), list(item['endings']), int(item['label'])
        if (len(found[1]) != 4 or not 0 <= found[2] < 4
                or not all(isinstance(text, str) for text in found[1])):
            raise ValueError('not four texts and one of their numbers')
        return found
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'line {number} of {path} must be a JSON object with ctx, four '
            f'endings and label 0 to 3, but: {error!r}') from error
