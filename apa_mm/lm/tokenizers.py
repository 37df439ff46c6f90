"""Tokenizers of GPT-2, and one that needs no files."""
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, Callable, List, NamedTuple, Optional

from apa_mm.utils.checks import InputError, check_choice


class Tokenizer(NamedTuple):
    """A function from text to numbers below ``size``, and a separator.

    ``end`` is the number that stands in front of each document.
    """

    encode: Callable[[str], List[int]]
    end: int
    size: int


def import_extra(name: str) -> ModuleType:
    """Import a library of the extra ``lm``.

    Raises:
        ImportError: If it is not installed, with the command for it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f'language models need {name}, which cannot be imported ({error});'
            " install it by pip install 'apa_mm[lm]'") from error


def build_tokenizer(kind: str, vocab: Optional[str] = None,
                    merges: Optional[str] = None) -> Tokenizer:
    """Return a tokenizer; special tokens in a text are read as plain text.

    Args:
        kind (str): 'tiktoken' for its 'gpt2', which it downloads unless
            ``TIKTOKEN_CACHE_DIR`` holds it; 'files' for GPT-2's own two
            files, read by the library tokenizers; 'bytes' for the bytes of
            UTF-8, 256 in front of a document.
        vocab (str, optional): ``vocab.json``, for 'files'.
        merges (str, optional): ``merges.txt``, for 'files'.

    Raises:
        InputError: If 'files' lacks one, or they cannot be read.
        ImportError: If the library is not installed.

    Example:
        >>> build_tokenizer('bytes').encode('AGLU')
        [65, 71, 76, 85]
    """
    check_choice('tokenizer', kind, ('tiktoken', 'files', 'bytes'))
    if kind == 'bytes':
        return Tokenizer(_utf8, end=256, size=257)
    if kind == 'tiktoken':
        gpt2 = import_extra('tiktoken').get_encoding('gpt2')
        return Tokenizer(gpt2.encode_ordinary, gpt2.eot_token, gpt2.n_vocab)
    if vocab is None or merges is None:
        raise InputError("tokenizer 'files' needs vocab (vocab.json) and "
                         'merges (merges.txt) of GPT-2; name both')
    library = import_extra('tokenizers')
    try:
        bpe = library.ByteLevelBPETokenizer(vocab, merges)
    except Exception as error:  # the library raises no narrower one
        raise InputError(f'{vocab} and {merges} are no tokenizer files of '
                         f'GPT-2: {error}') from error
    end = bpe.token_to_id('<|endoftext|>')
    if end is None:
        raise InputError(f'{vocab} has no <|endoftext|>; name the vocab.json '
                         'of GPT-2')
    return Tokenizer(partial(_ids, bpe), end, bpe.get_vocab_size())


def _utf8(text: str) -> List[int]:
    return list(text.encode())


def _ids(bpe: Any, text: str) -> List[int]:
    return bpe.encode(text).ids
