"""Read checkpoints put together at random: python pickle_fuzz.py N SEED.

Their pickles name everything that a file may name and call it with right and
wrong arguments. Whatever loads is looked at, so that memory which a value
does not own would be touched.
"""
import collections
import io
import random
import struct
import sys

import numpy as np
import torch
from apa_mm.weights import CheckpointError
from apa_mm.weights.constructors import Constructors
from apa_mm.weights.reading import read_stream
from support.checkpoint_attacks import archive, long_int

NAMES = sorted(Constructors(10**6).answers) + [
    'torch.float32', 'torch.int64', 'torch.bool', 'torch.float8_e4m3fn',
    'torch.quint8', '__builtin__.set', '__builtin__.bytes']
STORAGES = [n for n in NAMES if n.endswith('Storage')]
SIZES = [0, 1, 2, 3, 7, 8, 16, 63, 64, 65, 2**31, 2**40, 2**62, -1]
TEXTS = ['', 'a', 'latin1', 'mean', '_annealing_cos', 'f4', 'i8', 'O8', 'V8',
         'U4', '<', '>', 'cpu', 'cuda:0', 'storage', '_metadata', 'shape',
         'max_length', '_log_history', '_count_history', '__class__']


class Writer:

    def __init__(self, rng):
        self.rng = rng
        self.memo = 0

    def text(self, value):
        data = value.encode()
        return b'X' + struct.pack('<I', len(data)) + data

    def number(self, value):
        return b'K' + bytes([value]) if 0 <= value < 256 else long_int(value)

    def name(self, full=None):
        module, _, name = (full or self.rng.choice(NAMES)).rpartition('.')
        return f'c{module}\n{name}\n'.encode()

    def items(self, depth, least=0, most=4):
        return b''.join(self.value(depth) for _ in range(
            self.rng.randint(least, most)))

    def call(self, name, *args):
        return self.name(name) + b'(' + b''.join(args) + b'tR'

    def sizes(self):
        return b'(' + b''.join(
            self.number(self.rng.choice(SIZES[:6] * 3 + SIZES))
            for _ in range(self.rng.randint(0, 3))) + b't'

    def storage(self):
        key = self.rng.choice('012')
        return (b'(' + self.text('storage') + self.name(
            self.rng.choice(STORAGES)) + self.text(key) + self.text('cpu') +
                self.number(self.rng.choice(SIZES)) + b'tQ')

    def dtype(self):
        kind = self.call('numpy.dtype', self.text(
            self.rng.choice(['f4', 'f8', 'i8', 'u1', 'O8', 'b1'])))
        if self.rng.random() < 0.5:
            order = self.rng.choice(['<', '|', '>'])
            kind += (b'(K\x03' + self.text(order) + b'NNNK\x00K\x00K\x00tb')
        return kind

    def bytes(self):
        count = self.rng.choice([0, 1, 4, 8, 16, 24])
        return self.call('_codecs.encode', self.text('A' * count),
                         self.text('latin1'))

    def array(self):
        kind = self.call('numpy.core.multiarray._reconstruct',
                         self.name('numpy.ndarray'), b'K\x00\x85',
                         self.bytes())
        return kind + (b'(K\x01' + self.sizes() + self.dtype() +
                       self.rng.choice([b'\x88', b'\x89', b'K\x01']) +
                       self.bytes() + b'tb')

    def history(self):
        keys = ['max_length', '_log_history', '_count_history']
        state = b''.join(
            self.text(k) + (self.number(9) if k[0] == 'm' else self.array())
            for k in keys)
        return (self.name('mmengine.logging.history_buffer.HistoryBuffer') +
                b')\x81}(' + state + b'ub')

    def tensor(self):
        form = self.rng.choice(['_rebuild_tensor_v2', '_rebuild_tensor_v3'])
        args = [self.storage(), self.number(self.rng.choice(SIZES)),
                self.sizes(), self.sizes(),
                self.rng.choice([b'\x88', b'\x89']), b'N']
        if form.endswith('3'):
            args.append(self.name(self.rng.choice(
                [n for n in NAMES if n.startswith('torch.') and
                 n.split('.')[1][0].islower()])))
        return self.call(f'torch._utils.{form}', *args)

    def value(self, depth=0):
        rng = self.rng
        leaves = [
            lambda: rng.choice([b'N', b'\x88', b'\x89', b')', b']', b'}']),
            lambda: self.number(rng.choice(SIZES)),
            lambda: self.text(rng.choice(TEXTS)), self.name, self.tensor,
            self.array, self.history, self.dtype, self.bytes, self.storage,
            lambda: b'h' + bytes([rng.randrange(max(1, self.memo))]),
        ]
        if depth > 4 or rng.random() < 0.5:
            code = rng.choice(leaves)()
        else:
            inside = lambda *a: self.items(depth + 1, *a)  # noqa: E731
            code = rng.choice([
                lambda: b'(' + inside() + b't',
                lambda: b'](' + inside() + b'e',
                lambda: b'}(' + b''.join(
                    self.text(rng.choice(TEXTS)) + inside(1, 1)
                    for _ in range(3)) + b'u',
                lambda: self.name() + b'(' + inside() + b'tR',
                lambda: self.name() + b')\x81',
                lambda: inside(1, 1) + inside(1, 1) + b'b',
                lambda: inside(1, 1) + inside(1, 1) + b'R',
                lambda: inside(1, 1) + inside(1, 1) + b'a',
                lambda: inside(1, 1) + inside(2, 2) + b's',
                lambda: self.call('torch._tensor._rebuild_from_type_v2',
                                  self.name(), self.name(), inside(1, 1),
                                  inside(1, 1)),
            ])()
        if self.memo < 200 and rng.random() < 0.3:
            code += b'q' + bytes([self.memo])
            self.memo += 1
        return code


def look_at(value, depth=0):
    if isinstance(value, torch.Tensor):
        if value.numel() < 10**6 and not value.dtype.is_complex:
            value.detach().float().sum()
    elif isinstance(value, np.ndarray):
        value.sum()
    elif isinstance(value, dict):
        for item in value.values():
            look_at(item, depth + 1)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            look_at(item, depth + 1)
    elif type(value).__name__ == 'HistoryBuffer':
        if len(value._log_history):
            value.mean(), value.max(), value.statistics('min')
    repr(value)


def main(count, seed):
    rng = random.Random(seed)
    data = dict(_0=bytes(range(64)), _1=bytes(8), _2=b'')
    ends = collections.Counter()
    for _ in range(count):
        writer = Writer(rng)
        body = b''.join(
            writer.text(f'k{i}') + writer.value()
            for i in range(rng.choice([1, 1, 1, 2, 5])))
        file = archive(b'\x80\x02}(' + body + b'u.', **data)
        try:
            content, _ = read_stream(io.BytesIO(file))
        except CheckpointError as error:
            ends[str(error)[:40]] += 1
            continue
        ends['loaded'] += 1
        look_at(content)
    print(f'{count} files, {ends["loaded"]} loaded, no crash')
    for words, number in ends.most_common(40):
        print(f'{number:6} {words}')


if __name__ == '__main__':
    main(int(sys.argv[1]), int(sys.argv[2]))
