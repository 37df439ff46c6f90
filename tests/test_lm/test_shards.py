"""Token shards, tokenizers, HellaSwag's file and the metrics; no GPT-2."""
import json
import math
import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.dataset import ConcatDataset
from support.configs import ROOT
from support.optional import NOT_THERE, offer

from apa_mm.lm.datasets import HellaSwagEndings, TokenShards
from apa_mm.lm.metrics import HellaSwagAccuracy, TokenLoss
from apa_mm.lm.shards import read_texts, write_shards
from apa_mm.lm.tokenizers import build_tokenizer
from apa_mm.preflight.job import InputError

BYTES = build_tokenizer('bytes')
DOCUMENTS = ['first one', 'zweites: äöü', '', 'x' * 50]


def write(folder, **options):
    (folder / 'in').mkdir()
    (folder / 'in' / 'a.txt').write_text(DOCUMENTS[0], encoding='utf-8')
    (folder / 'in' / 'b.jsonl').write_text(''.join(
        json.dumps(dict(text=text, id=1)) + '\n' for text in DOCUMENTS[1:]))
    counts = write_shards(read_texts(str(folder / 'in')),
                          str(folder / 'out'), BYTES, **options)
    return counts, [np.load(path) for path in
                    sorted((folder / 'out').iterdir(),
                           key=lambda path: path.stem.split('_')[1])]


@pytest.mark.parametrize('processes', [1, 2])
def test_shards_hold_every_token_in_order(tmp_path, processes):
    counts, shards = write(tmp_path, shard_size=32, val_tokens=20,
                           processes=processes)
    want = [number for text in DOCUMENTS for number in [256, *text.encode()]]
    assert counts == [20, 32, len(want) - 52]
    assert counts == [len(shard) for shard in shards]
    assert all(shard.dtype == np.uint16 for shard in shards)
    assert np.concatenate(shards).tolist() == want
    assert [path.name for path in sorted((tmp_path / 'out').iterdir())] == [
        'train_000001.npy', 'train_000002.npy', 'val_000000.npy']


def test_a_long_document_fills_several_shards(tmp_path):
    counts = write_shards(['y' * 99], str(tmp_path / 'o'), BYTES, 30, 10)
    assert counts == [10, 30, 30, 30]


@pytest.mark.parametrize('name, content, words', [
    ('a.txt', b'\xff\xfe', 'a.txt, line None: cannot be read'),
    ('a.jsonl', b'{"text": "x"}\n{"texts": 1}\n', 'a.jsonl, line 2:'),
    ('a.jsonl', b'{"text": 3}\n', 'its text is no text'),
    ('a.md', b'x', 'holds no .txt and no .jsonl'),
    ('a.txt', b'short', 'the text ends within the first'),
])
def test_bad_text_is_one_error_and_leaves_nothing(
        tmp_path, name, content, words):
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in' / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        write_shards(read_texts(str(tmp_path / 'in')), str(tmp_path / 'out'),
                     BYTES)
    assert [path.name for path in tmp_path.iterdir()] == ['in']


def test_the_tool_says_errors_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', [
        'x', str(tmp_path), str(tmp_path), '--tokenizer', 'bytes'])
    with pytest.raises(SystemExit, match=f'error: {tmp_path} exists'):
        runpy.run_path(str(ROOT / 'tools/prepare_tokens.py'),
                       run_name='__main__')


def test_numbers_that_do_not_fit_are_refused(tmp_path):
    for options in (dict(shard_size=0), dict(val_tokens=0),
                    dict(processes=0)):
        with pytest.raises(InputError, match='must be 1 or more'):
            write_shards(['x'], str(tmp_path / 'o'), BYTES, **options)
    with pytest.raises(InputError, match='at most 65536 large'):
        write_shards(['x'], str(tmp_path / 'o'), BYTES._replace(size=65537))


def shard(folder, name, tokens, dtype=np.uint16):
    np.save(folder / name, np.array(tokens, dtype=dtype))
    return str(folder / '*')


def test_windows_overlap_by_one_and_stay_in_a_shard(tmp_path):
    shard(tmp_path, 'b.npy', range(100, 108))
    shard(tmp_path, 'c.npy', [1, 2])  # too short for a window
    pattern = shard(tmp_path, 'a.npy', range(12))
    windows = TokenShards(pattern, length=4)
    got = [windows[i]['tokens'].tolist() for i in range(len(windows))]
    assert got == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8],
                   [100, 101, 102, 103, 104]]
    for outside in (3, -1):
        with pytest.raises(IndexError):
            windows[outside]
    assert len(TokenShards(pattern, length=4, max_windows=2)) == 2


@pytest.mark.parametrize('name, dtype, words', [
    ('a.npy', np.int32, 'must hold uint16'),
    ('a.npy', object, 'cannot be read'),
    ('a.npy', np.uint16, 'no window of 99'),
    ('none', None, 'matches 0 files'),
])
def test_files_that_are_no_shards(tmp_path, name, dtype, words):
    pattern = str(tmp_path / '*')
    if dtype:
        shard(tmp_path, name, range(9), dtype)
    with pytest.raises(InputError, match=words):
        TokenShards(pattern, length=99)


def test_arrays_and_pickles_that_are_no_shards(tmp_path):
    np.save(tmp_path / 'a.npy', np.zeros((200, 2), np.uint16))
    (tmp_path / 'b.npy').write_bytes(pickle.dumps([1]))
    with pytest.raises(InputError, match=r'a\.npy must hold uint16 of shape'):
        TokenShards(str(tmp_path / 'a*'), length=99)
    with pytest.raises(InputError, match=r'b\.npy cannot be read'):
        TokenShards(str(tmp_path / 'b*'), length=99)


def item(**changes):
    return json.dumps(dict(dict(
        ctx='ab', endings=['c', 'dd', 'e', 'f'], label=2), **changes),
        ensure_ascii=False)


def endings(folder, *lines, length=8):
    (folder / 'h.jsonl').write_text('\n'.join(lines), encoding='utf-8')
    return HellaSwagEndings(str(folder / 'h.jsonl'), dict(kind='bytes'),
                            length)


def test_endings_stand_behind_their_context(tmp_path):
    # U+2028 ends a line for str.splitlines, not in JSON.
    data = endings(tmp_path, item(note='\u2028'), item(ctx='', label='1'),
                   item(ctx='0123456789'))
    assert len(data) == 12
    second = data[1]
    assert bytes(second.pop('tokens').tolist()) == b'ab dd'
    assert second == dict(first=2, item=0, ending=1, label=2)
    assert data[5]['tokens'].tolist() == [256, *b' dd']
    assert data[5]['first'] == 1 and data[5]['label'] == 1
    # Eight are seen and one more foretold: the context's end is kept.
    assert bytes(data[9]['tokens'].tolist()) == b'456789 dd'
    assert data[9]['first'] == 6
    long = endings(tmp_path, item(endings=['0123456789', 'a', 'b', 'c']))[0]
    assert bytes(long['tokens'].tolist()) == b'b23456789'
    assert long['first'] == 1


@pytest.mark.parametrize('line', [
    '{', '[]', item(label=4), item(label=None), item(endings=['a'] * 3),
    item(endings=[1, 2, 3, 4]), '{"ctx": ""}'])
def test_a_line_that_is_no_item_is_named(tmp_path, line):
    with pytest.raises(InputError, match=r'line 2 of .*h\.jsonl must be'):
        endings(tmp_path, item(), line)


def test_files_without_items(tmp_path):
    with pytest.raises(InputError, match='holds no items'):
        endings(tmp_path, '')
    with pytest.raises(InputError, match='cannot be read'):
        HellaSwagEndings(str(tmp_path / 'no'), dict(kind='bytes'))


def scored(*sums, label, number, counts=(1, 1, 1, 1)):
    return [dict(nll=nll, count=count, item=number, ending=i, label=label)
            for i, (nll, count) in
            enumerate(zip(sums, counts, strict=True))]


def test_metrics_of_known_answers(tmp_path):
    samples = [
        *scored(6, 1, label=-1, number=-1, counts=(4, 10)),
        # Right by the sum, wrong by the mean; wrong, right; both wrong; tie.
        *scored(2, 3, 9, 9, label=0, number=7, counts=(1, 3, 1, 1)),
        *scored(2, 3, 9, 9, label=1, number=3, counts=(1, 3, 1, 1)),
        *scored(1, 2, 3, 4, label=3, number=4),
        *scored(5, 5, 5, 5, label=0, number=5),
    ]
    accuracy, loss = HellaSwagAccuracy(), TokenLoss()
    for metric in (accuracy, loss):
        metric.process({}, samples[:5])
        metric.process({}, samples[:4:-1])  # in whatever order
    size = len(samples)
    assert accuracy.evaluate(size) == {
        'hellaswag/acc': 50., 'hellaswag/acc_norm': 50.}
    assert loss.evaluate(size) == {'tokens/loss': .5}
    samples = scored(1, 2, 3, 4, label=1, number=0, counts=(1, 4, 1, 1))
    accuracy.process({}, samples)
    assert accuracy.evaluate(4) == {
        'hellaswag/acc': 0., 'hellaswag/acc_norm': 100.}
    loss.process({}, samples)
    accuracy.process({}, scored(6, label=-1, number=-1, counts=(4, )))
    assert math.isnan(loss.evaluate(4)['tokens/loss'])
    assert all(map(math.isnan, accuracy.evaluate(1).values()))


def test_both_sets_are_validated_as_one(tmp_path):
    shard(tmp_path, 'a.npy', range(9))
    pattern = str(tmp_path / '*.npy')
    endings(tmp_path, item())
    both = ConcatDataset([
        dict(type='apa_mm.TokenShards', shards=pattern, length=4),
        dict(type='apa_mm.HellaSwagEndings', tokenizer=dict(kind='bytes'),
             path=str(tmp_path / 'h.jsonl'))])
    assert len(both) == 6 and both[2]['label'] == 2 and both[1]['label'] == -1
    # mmengine's collation takes the keys of the first.
    assert both[1].keys() == both[2].keys()


@pytest.mark.skipif(not offer('tokenizers', 'tokenizers*'),
                    reason=f'tokenizers is {NOT_THERE}')
def test_tokenizer_files(tmp_path):
    from tokenizers import ByteLevelBPETokenizer
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(['aglu aglu gelu'] * 9, vocab_size=270,
                                special_tokens=['<|endoftext|>'])
    vocab, merges = trained.save_model(str(tmp_path))
    ours = build_tokenizer('files', vocab, merges)
    assert trained.decode(ours.encode('a gelu\n ü')) == 'a gelu\n ü'
    assert ours.end == 0 and ours.size == trained.get_vocab_size()
    assert ours.end not in ours.encode('<|endoftext|>')
    with pytest.raises(InputError, match='no tokenizer files'):
        build_tokenizer('files', merges, vocab)
    numbers = json.loads(Path(vocab).read_text(encoding='utf-8'))
    del numbers['<|endoftext|>']
    Path(vocab).write_text(json.dumps(numbers), encoding='utf-8')
    with pytest.raises(InputError, match=r'has no <\|endoftext\|>'):
        build_tokenizer('files', vocab, merges)


def test_what_a_tokenizer_lacks_is_said(monkeypatch):
    with pytest.raises(InputError, match='needs vocab'):
        build_tokenizer('files')
    with pytest.raises(ValueError, match='tokenizer must be one of'):
        build_tokenizer('words')
    monkeypatch.setitem(sys.modules, 'tiktoken', None)
    with pytest.raises(ImportError, match=r"pip install 'apa_mm\[lm\]'"):
        build_tokenizer('tiktoken')


def test_no_import_of_the_package_imports_transformers():
    code = ('import sys; sys.modules["transformers"] = None; '
            'sys.modules["tokenizers"] = sys.modules["tiktoken"] = None; '
            'from apa_mm.registry import DATASETS, METRICS\n'
            'import apa_mm.lm; print(apa_mm.lm.GPT2.__name__)\n'
            'try: apa_mm.lm.GPT2({})\n'
            'except ImportError as error: print(error)')
    result = subprocess.run([sys.executable, '-c', code], text=True,
                            capture_output=True)
    assert result.stdout.startswith('GPT2\nlanguage models need transformers')
    assert "pip install 'apa_mm[lm]'" in result.stdout
