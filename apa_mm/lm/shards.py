"""Write token shards from a folder of text."""
import json
import os
import shutil
from contextlib import nullcontext
from multiprocessing import Pool
from pathlib import Path
from typing import Iterable, Iterator, List

import numpy as np

from apa_mm.utils.checks import InputError

from .tokenizers import Tokenizer


def read_texts(folder: str) -> Iterator[str]:
    """Yield the documents below a folder, sorted by file name.

    A ``.txt`` file is one, and so is the ``text`` of each line of a
    ``.jsonl`` file.

    Raises:
        InputError: If there are no such files, or one is something else.
    """
    paths = [path for path in sorted(Path(folder).rglob('*'))
             if path.suffix in ('.txt', '.jsonl') and path.is_file()]
    if not paths:
        raise InputError(f'{folder} holds no .txt and no .jsonl files')
    for path in paths:
        number = None
        try:
            if path.suffix == '.txt':
                yield path.read_text(encoding='utf-8')
                continue
            with open(path, encoding='utf-8') as file:
                for number, line in enumerate(file, 1):  # noqa: B007
                    text = json.loads(line)['text']
                    if not isinstance(text, str):
                        raise TypeError('its text is no text')
                    yield text
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f'{path}, line {number}: cannot be read '
                             f'({error!r}); UTF-8, and in .jsonl one object '
                             'with "text" per line, is expected') from error


def write_shards(texts: Iterable[str], folder: str, tokenizer: Tokenizer,
                 shard_size: int = 10**8, val_tokens: int = 10**8,
                 processes: int = 1) -> List[int]:
    """Write ``val_000000.npy`` and ``train_000001.npy`` and so on.

    The first, of ``val_tokens``, is for validation, the others are of
    ``shard_size`` tokens and the last has the rest; their sizes are returned.
    The separator stands in front of each document. Either the folder is
    there with all shards, or there is none.

    Raises:
        InputError: If the folder exists, a number is below 1, the tokenizer
            has more than 65,536 numbers, or there is no text behind the first
            shard.
    """
    out = Path(folder)
    if out.exists():
        raise InputError(f'{out} exists; name a folder that does not')
    if min(shard_size, val_tokens, processes) < 1 or tokenizer.size > 2**16:
        raise InputError(
            'shard_size, val_tokens and processes must be 1 or more and the '
            f'tokenizer at most 65536 large, but got {shard_size}, '
            f'{val_tokens}, {processes} and {tokenizer.size}')
    temporary = out.with_name(f'.{out.name}.{os.getpid()}.writing')
    temporary.mkdir(parents=True)
    counts: List[int] = []
    try:
        with Pool(processes) if processes > 1 else nullcontext() as pool:
            each = (pool.imap(tokenizer.encode, texts, 16) if pool
                    else map(tokenizer.encode, texts))
            for tokens in _cut(each, tokenizer.end, val_tokens, shard_size):
                name = f'{"train" if counts else "val"}_{len(counts):06d}.npy'
                np.save(temporary / name, tokens)
                counts.append(len(tokens))
        if len(counts) < 2:
            raise InputError(
                f'the text ends within the first {val_tokens} tokens, which '
                'are for validation; give more text, or fewer val_tokens')
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return counts


def _cut(documents: Iterable[List[int]], end: int, size: int,
         later_size: int) -> Iterator[np.ndarray]:
    """Yield shards of ``size``, then ``later_size``; the last has the rest."""
    parts: List[np.ndarray] = []
    held = 0
    for document in documents:
        parts.append(np.array([end, *document], dtype=np.uint16))
        held += len(parts[-1])
        while held >= size:
            whole = np.concatenate(parts)
            yield whole[:size]
            parts, held = [whole[size:]], held - size
            size = later_size
    if held:
        yield np.concatenate(parts)
