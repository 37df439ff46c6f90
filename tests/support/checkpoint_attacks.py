"""Files that were made, or damaged, to harm who loads them."""
import functools
import io
import json
import os
import pickle
import struct
import zipfile

import torch


class Call:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def torch_bytes(content, legacy=False):
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def rewrite(data, change, compress=zipfile.ZIP_STORED):
    """Return a torch archive with its entries changed."""
    source = zipfile.ZipFile(io.BytesIO(data))
    entries = {i.filename: source.read(i) for i in source.infolist()}
    entries = change(entries)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w', compress) as target:
        for name, value in entries.items():
            target.writestr(name, value)
    return stream.getvalue()


def archive(pickled, **data):
    """Return a torch archive around a pickle written by hand."""
    entries = {'archive/data.pkl': pickled, 'archive/version': b'3\n'}
    entries.update({f'archive/data/{k[1:]}': v for k, v in data.items()})
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w') as target:
        for name, value in entries.items():
            target.writestr(name, value)
    return stream.getvalue()


def under_model(value):
    """Pickle of dict(model=value), with the value as opcodes."""
    return b'\x80\x02}X\x05\x00\x00\x00model' + value + b's.'


def long_int(number):
    """Pickle a number as LONG1 with 8 bytes."""
    return b'\x8a\x08' + struct.pack('<q', number)


def safetensors_bytes(header, body=b''):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack('<Q', len(text)) + text + body


def nested_tuples(levels):
    """Opcodes of t = (t, t), again and again."""
    code = b')q\x00'
    for _ in range(levels):
        code += b'h\x00h\x00\x86q\x00'
    return b'(' + code + b't'


def object_array():
    """Opcodes of an array whose objects are eight bytes of the file."""
    return (b'cnumpy\nndarray\n(K\x01\x85cnumpy\ndtype\nX\x02\x00\x00\x00O8'
            b'\x89\x88\x87RX\x08\x00\x00\x00AAAAAAAAtR')


def cut_record(state):
    data = torch_bytes(dict(state_dict=state, meta={}))

    def change(entries):
        name = max((n for n in entries if '/data/' in n),
                   key=lambda n: len(entries[n]))
        return {**entries, name: entries[name][:64]}

    return rewrite(data, change)


def flipped(state):
    """A weight is changed and the checksum is not."""
    data = bytearray(torch_bytes(dict(state_dict=state, meta={})))
    data[len(data) // 2] ^= 0xff
    return bytes(data)


@functools.lru_cache
def zip_bomb():
    return rewrite(
        torch_bytes(dict(state_dict=dict(a=torch.ones(1)))),
        lambda e: {**e, 'archive/data/0': bytes(100 * 2**20)},
        zipfile.ZIP_DEFLATED)


@functools.lru_cache
def many_tensors():
    entry = dict(dtype='F32', shape=[1], data_offsets=[0, 4])
    return safetensors_bytes({f'{i}': entry for i in range(200_000)}, bytes(4))


def all_attacks(state, marker):
    """Return files by name; ``marker`` is what hostile code would make."""
    whole = torch_bytes(dict(state_dict=state, meta={}))
    return {
        'code': torch_bytes(dict(
            state_dict=state, meta=Call(os.system, f'touch {marker}'))),
        'code, legacy': torch_bytes(dict(
            state_dict=state, meta=Call(os.system, f'touch {marker}')), True),
        'bare code': pickle.dumps(Call(os.system, f'touch {marker}'), 2),
        'object array': archive(under_model(object_array())),
        'record cut to 64 bytes': cut_record(state),
        'flipped byte': flipped(state),
        'zip bomb': zip_bomb(),
        'BYTEARRAY8': archive(under_model(
            b'\x96' + struct.pack('<Q', 2**32) + b'a')),
        'nested tuples as key': archive(
            b'\x80\x02}' + nested_tuples(64) + b'Ns.'),
        'nested tuples': archive(under_model(nested_tuples(64))),
        'copies': archive(
            b'\x80\x02}X\x01\x00\x00\x00a(c_codecs\nencode\nq\x00'
            b'X\x00\x00\x02\x00' + bytes(2**17) + b'X\x06\x00\x00\x00latin1'
            b'\x86q\x01' + b'h\x00h\x01R' * 60_000 + b'ts.'),
        '200,000 tensors': many_tensors(),
        'terabytes': struct.pack('<Q', 10**13) + b'{"a": 1}',
        'truncated': whole[:len(whole) // 2],
        'web page': b'\n<!DOCTYPE html><html>404 Not Found</html>',
        'Git-LFS': b'version https://git-lfs.github.com/spec/v1\noid sha256:0',
    }
