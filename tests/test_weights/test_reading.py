"""Files from the open web: nothing of theirs runs, nothing is made of them."""
import argparse
import collections
import io
import json
import os
import pickle
import random
import re
import struct
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from apa_mm.checkpoint.contents import check_finite, find_weights
from apa_mm.weights import CheckpointError, read_checkpoint
from support.checkpoint_attacks import (Call, archive, flipped, long_int,
                                        nested_tuples, object_array, rewrite,
                                        safetensors_bytes, torch_bytes,
                                        under_model)

WEIGHTS = {'conv1.weight': torch.arange(12.).reshape(3, 4)}


def claim(data, old, new):
    """Change a number in the pickle of a torch archive."""

    def change(entries):
        name = next(n for n in entries if n.endswith('data.pkl'))
        assert old in entries[name]
        return {**entries, name: entries[name].replace(old, new)}

    return rewrite(data, change)


def write(tmp_path, data):
    path = tmp_path / 'file.pth'
    path.write_bytes(data)
    return str(path)


# --- what must be readable ---
@pytest.mark.parametrize('legacy', [False, True])
def test_everything_that_real_files_hold_is_read(tmp_path, legacy):
    content = dict(
        model=WEIGHTS,
        args=argparse.Namespace(lr=0.2, classif_norm=None, gpu=0),
        message_hub=dict(loss=HistoryBuffer([1.0, 2.0], [1, 1])),
        lr_scheduler=dict(_milestones=collections.Counter([3, 5])),
        best=np.float64(0.5),
        counts=np.arange(3),
        epoch=99)
    raw = read_checkpoint(
        write(tmp_path, torch_bytes(content, legacy=legacy)))
    assert torch.equal(raw.content['model']['conv1.weight'],
                       WEIGHTS['conv1.weight'])
    assert raw.content['args'].lr == 0.2
    assert len(raw.sha256) == 64 and raw.num_bytes > 500


def test_kinds_of_values_come_back_as_they_were(tmp_path):
    one = torch.arange(12.).reshape(3, 4)
    attribute = torch.nn.Parameter(torch.ones(2))
    attribute.note = 'lost'
    content = dict(
        tensors=[one, one.t(), one[1:], torch.zeros(0, 3), torch.zeros(2, 0),
                 torch.tensor(3),
                 torch.ones(2, dtype=torch.bfloat16),
                 torch.ones(3, dtype=torch.uint16),
                 torch.tensor([True, False]), attribute,
                 torch.ones(1, requires_grad=True),
                 torch.nn.Parameter(torch.ones(1), requires_grad=False)],
        plain=[1j, slice(1, 2), 2**100, None, b'\xff', b'', {1, 2}, (1, (2, )),
               torch.Size([2]), torch.float16, torch.device('cuda:1')],
        arrays=[np.asfortranarray(np.arange(6.).reshape(2, 3)),
                np.zeros(2, np.uint32), np.array([True])],
        state=np.random.get_state())
    for legacy in (False, True):
        path = write(tmp_path, torch_bytes(content, legacy))
        loaded = read_checkpoint(path).content
        assert loaded['plain'] == content['plain']
        for old, new in zip(content['tensors'], loaded['tensors'],
                            strict=True):
            assert torch.equal(old, new) and old.dtype == new.dtype
            assert old.requires_grad == new.requires_grad
        assert loaded['tensors'][0].data_ptr() == loaded['tensors'][
            1].data_ptr()
        assert type(loaded['tensors'][9]) is torch.nn.Parameter
        for old, new in zip(content['arrays'], loaded['arrays'], strict=True):
            assert (old == new).all() and old.dtype == new.dtype
        np.random.set_state(loaded['state'])
        meta = read_checkpoint(path, 'meta').content['tensors']
        assert meta[1].is_meta and meta[1].stride() == one.t().stride()


@pytest.mark.parametrize('module', ['numpy.core', 'numpy._core'])
def test_files_of_numpy_1_and_2_are_read(tmp_path, module):
    own = np.float64(0).__reduce__()[0].__module__.rpartition('.')[0]
    data = claim(torch_bytes(dict(best=np.float64(0.5))),
                 f'{own}.multiarray'.encode(), f'{module}.multiarray'.encode())
    assert read_checkpoint(write(tmp_path, data)).content['best'] == 0.5


def test_the_users_own_list_of_allowed_classes_counts(tmp_path):
    path = write(tmp_path, torch_bytes(dict(a=Own())))
    with pytest.raises(CheckpointError, match='wants .*Own, and'):
        read_checkpoint(path)
    with torch.serialization.safe_globals([Own]):
        assert read_checkpoint(path).content['a'].value == 3


def test_of_torch_nothing_but_weights(tmp_path, monkeypatch):
    """Parts of torch put themselves on its list of allowed classes."""
    allowed = [(Own, 'other.Name'), torch.nn.Linear]
    monkeypatch.setattr(torch.serialization, 'get_safe_globals',
                        lambda: allowed, raising=False)
    with pytest.raises(CheckpointError, match='wants torch.nn.*Linear'):
        read_checkpoint(write(tmp_path, torch_bytes(
            dict(a=torch.nn.Linear(1, 1)))))
    data = archive(under_model(b'cother\nName\n)\x81}b'))
    assert type(read_checkpoint(write(tmp_path, data)).content[
        'model']) is Own
    allowed[0] = Stateful
    data = torch_bytes(dict(a=Stateful()))
    assert read_checkpoint(write(tmp_path, data)).content['a'].state == 'kept'


class Own:

    def __init__(self):
        self.value = 3


class Stateful:

    def __getstate__(self):
        return 'kept'

    def __setstate__(self, state):
        self.state = state


def test_safetensors_are_read_with_their_header(tmp_path):
    from safetensors.torch import save_file
    path = str(tmp_path / 'a.safetensors')
    save_file(WEIGHTS, path, metadata={'meta': json.dumps(dict(a=1))})
    raw = read_checkpoint(path)
    assert torch.equal(raw.content['conv1.weight'], WEIGHTS['conv1.weight'])
    weights = find_weights(raw.content, metadata=raw.metadata)
    assert weights.facts.meta == dict(a=1)
    assert weights.facts.form == 'safetensors'


# --- pickles that would run code ---
@pytest.mark.parametrize('place', ['top', 'args', 'message_hub', 'reduce',
                                   'bare'])
@pytest.mark.parametrize('legacy', [False, True])
def test_no_code_of_a_file_runs(tmp_path, place, legacy):
    marker = tmp_path / 'it-ran'
    bad = Call(os.system, f'touch {marker}')
    content = {
        'top': lambda: bad,
        'args': lambda: dict(model=WEIGHTS, args=argparse.Namespace(x=bad)),
        'message_hub': lambda: dict(
            state_dict=WEIGHTS, message_hub=dict(h=[bad])),
        'reduce': lambda: dict(model={'conv1.weight': bad}),
        'bare': lambda: dict(model=WEIGHTS, args=bad),
    }[place]()
    data = torch_bytes(content, legacy)
    if place == 'bare':
        data = pickle.dumps(content, protocol=2)
    path = write(tmp_path, data)
    with pytest.raises(
            CheckpointError, match='system|_load_from_bytes') as error:
        read_checkpoint(path)
    assert '\n' not in str(error.value)
    assert 'weights_only' not in str(error.value)
    assert not marker.exists()
    # The proof that the file is what it says.
    if place == 'bare':
        pickle.loads(data)
        assert marker.exists()


def test_a_pickled_module_names_its_class(tmp_path):
    path = write(tmp_path, torch_bytes(torch.nn.Linear(2, 2)))
    with pytest.raises(CheckpointError, match=r'wants torch\.nn.*Linear.*'
                       r'save dict\(state_dict=model.state_dict\(\)\)'):
        read_checkpoint(path)


# --- claims of more than there is ---
BIG = 10**13


def test_a_tensor_that_claims_terabytes(tmp_path):
    data = torch_bytes(dict(model={'a': torch.zeros(7).expand(7)}))
    # Size (7,) of stride 1 becomes (10^13,): K\x07 is pickle's small integer.
    path = write(tmp_path, claim(data, b'K\x07\x85', long_int(BIG) + b'\x85'))
    with pytest.raises(CheckpointError, match='header claims 4e.13 bytes'):
        read_checkpoint(path)


def test_a_storage_that_claims_more_than_its_entry(tmp_path):
    data = torch_bytes(dict(model={'a': torch.zeros(7)}))
    # The last item of a persistent id, ('storage', type, key, place, 7).
    path = write(tmp_path, claim(data, b'K\x07tq\tQ', b'K\x09tq\tQ'))
    with pytest.raises(CheckpointError,
                       match='storage 0 claims 36 bytes, but holds 28'):
        read_checkpoint(path)
    path = write(
        tmp_path, claim(data, b'K\x07tq\tQ', long_int(BIG) + b'tq\tQ'))
    with pytest.raises(CheckpointError, match='header claims 4e.13 bytes'):
        read_checkpoint(path)


def test_a_legacy_file_that_claims_terabytes(tmp_path):
    data = torch_bytes(dict(model={'a': torch.zeros(7)}), legacy=True)
    index = data.index(b'cpu') + 3
    assert data[index + 2:index + 4] == b'K\x07'
    data = data[:index + 2] + long_int(BIG) + data[index + 4:]
    with pytest.raises(CheckpointError, match='header claims 4e.13 bytes'):
        read_checkpoint(write(tmp_path, data))


ARRAY = (b'cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85'
         b'NtR(K\x01')
NAMESPACE = b'cargparse\nNamespace\n)\x81'
HISTORY = b'cmmengine.logging.history_buffer\nHistoryBuffer\n'
FLOATS = b'cnumpy\ndtype\nX\x02\x00\x00\x00f8\x85R'


@pytest.mark.parametrize('value, match', [
    (b'cnumpy\nndarray\n' + long_int(BIG) + b'\x85R', 'calls what is no'),
    (ARRAY + long_int(BIG) + b'\x85' + FLOATS + b'\x89)tb', 'another size'),
    (object_array(), "array of kind 'O8'"),
    (b'cbuiltins\nbytearray\n' + long_int(BIG) + b'\x85R', 'wants builtins.b'),
    (b'\x96' + struct.pack('<Q', 2**32) + b'a', r"instruction b'\\x96'"),
    (nested_tuples(64), 'nested without an end'),
    (b']q\x00h\x00a', 'holds itself'),
    (b'}' + nested_tuples(64) + b'Ns', 'has a tuple where a name'),
    (b'cbuiltins\nset\n]' + nested_tuples(64) + b'a\x85R', 'tuple where a na'),
    (b'cfoo\nfloat32\n', 'wants foo.float32'),
    (b'}K\x01\x85R', 'calls what is no'),
    (b'ctorch\nfloat32\n)R', 'calls what is no'),
    (HISTORY + b'N\x85\x81', 'a class that it may not'),
    (b'c_codecs\nencode\n)\x81', 'a class that it may not'),
    (b'ctorch\nSize\n)\x81', 'a class that it may not'),
    (FLOATS + b'(K\x03X\x01\x00\x00\x00>NNNtb', 'cannot have'),
    (FLOATS + b'(K\x03X\x01\x00\x00\x00<K\x01NNtb', 'cannot have'),
    (NAMESPACE + b'}K\x01K\x01sb', 'cannot have'),
    (NAMESPACE + b'Nb', 'cannot have'),
    (b']}X\x01\x00\x00\x00aNsb', 'cannot have'),
    (NAMESPACE + b'}X\x01\x00\x00\x00a' + nested_tuples(64) + b'sb',
     'nested without an end'),
    (b']' * 101 + b'a' * 100, 'nested without an end'),
    (b']K\x00K\x01s', 'is no dict'),
    (b'}K\x00a', 'is no list'),
    (b'(ccollections\nOrderedDict\nq\x00](' + b'NN\x86' * 20000 +
     b'eq\x01' +
     b'h\x00h\x01\x85R' * 2000 + b't', 'again and again'),
    (b'ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsNsb',
     'cannot have'),
    (HISTORY + b')\x81}(X\x0a\x00\x00\x00max_lengthK\x05X\x0c\x00\x00\x00'
     b'_log_history]X\x0e\x00\x00\x00_count_history]ub',
     'other values than scalars'),
])
def test_values_that_are_made_to_harm(tmp_path, value, match):
    with pytest.raises(CheckpointError, match=match):
        read_checkpoint(write(tmp_path, archive(under_model(value))))


@pytest.mark.parametrize('owner, name', [
    (np.ndarray, 'tofile'),
    (HistoryBuffer, '__init__'),
    (HistoryBuffer, 'register_statistics'),
    (torch.Tensor, 'mean'),
])
def test_getattr_gives_nothing_but_the_known_methods(tmp_path, owner, name):
    path = write(tmp_path, torch_bytes(dict(a=Call(getattr, owner, name))))
    with pytest.raises(CheckpointError, match=f"'{name}'.*only the stat"):
        read_checkpoint(path)


def test_a_tensor_stays_inside_its_storage(tmp_path):
    # Offset 0 becomes 5: seven floats from the sixth of seven.
    data = torch_bytes(dict(model={'a': torch.zeros(7)}))
    path = write(tmp_path, claim(data, b'QK\x00K\x07', b'QK\x05K\x07'))
    with pytest.raises(CheckpointError, match='beyond the 28 bytes'):
        read_checkpoint(path)


def test_an_entry_may_not_claim_more_than_it_holds(tmp_path):
    data = bytearray(torch_bytes(dict(a=torch.ones(4), b=torch.ones(99))))
    # The size of data/0 in the archive's list of entries.
    start = data.rindex(b'PK\x01\x02', 0, data.rindex(b'/data/0'))
    size = slice(start + 24, start + 28)
    assert data[size] == struct.pack('<I', 16)
    data[size] = struct.pack('<I', 24)
    with pytest.raises(CheckpointError, match='damaged: .* entry .*/data/0'):
        read_checkpoint(write(tmp_path, bytes(data)))


def test_a_flipped_byte_is_noticed(tmp_path):
    with pytest.raises(CheckpointError, match='checksum of its entry .*/data/'
                       '0 is wrong'):
        read_checkpoint(
            write(tmp_path, flipped({'a': torch.arange(4000.)})))


def test_random_pickles_of_the_allowed_names_do_no_harm():
    from support import pickle_fuzz
    result = subprocess.run(
        [sys.executable, pickle_fuzz.__file__, '1500', '0'],
        capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert int(result.stdout.split()[2]) > 200, result.stdout


def test_a_compressed_archive_is_refused_unopened(tmp_path):
    data = rewrite(
        torch_bytes(dict(model=WEIGHTS)), lambda e: {
            **e, 'archive/data/0': bytes(50 * 2**20)
        }, zipfile.ZIP_DEFLATED)
    assert len(data) < 2**20  # fifty times smaller than its content
    with pytest.raises(CheckpointError, match='is compressed, which torch'):
        read_checkpoint(write(tmp_path, data))


def test_a_zip_directory_that_claims_terabytes(tmp_path):
    data = bytearray(torch_bytes(dict(model=WEIGHTS)))
    entry = data.rindex(b'PK\x01\x02')
    data[entry + 24:entry + 28] = struct.pack('<I', 2**32 - 2)
    with pytest.raises(CheckpointError, match='entries claim 4.29e.09 bytes'):
        read_checkpoint(write(tmp_path, bytes(data)))


def test_many_views_of_one_storage_are_counted(tmp_path):
    one = torch.zeros(1000)
    path = write(tmp_path, torch_bytes(
        dict(model={f'{i}': one[:] for i in range(2000)})))
    with pytest.raises(CheckpointError, match='made to fill the memory'):
        read_checkpoint(path)


def test_safetensors_headers_are_held_against_the_file(tmp_path):
    huge = struct.pack('<Q', 10**15) + b'{"a": 1}'
    with pytest.raises(CheckpointError, match='header claims 1e.15 bytes'):
        read_checkpoint(write(tmp_path, huge))
    entry = dict(dtype='F32', shape=[BIG], data_offsets=[0, 4 * BIG])
    with pytest.raises(CheckpointError, match='truncated or damaged'):
        read_checkpoint(write(tmp_path, safetensors_bytes(dict(a=entry))))
    twins = (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
             b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}')
    with pytest.raises(CheckpointError, match='names a tensor twice'):
        read_checkpoint(
            write(tmp_path, safetensors_bytes(twins, b'\0\0\0\0')))
    with pytest.raises(CheckpointError, match='header is no JSON'):
        read_checkpoint(write(tmp_path, safetensors_bytes(b'{"a": nonsense')))


# --- damaged and other files ---
@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('share', [0.02, 0.3, 0.7, 0.999])
def test_truncated_files(tmp_path, legacy, share):
    data = torch_bytes(dict(model=WEIGHTS), legacy)
    path = write(tmp_path, data[:int(len(data) * share)])
    with pytest.raises(CheckpointError,
                       match='truncated or damaged|no checkpoint'):
        read_checkpoint(path)


@pytest.mark.parametrize('data, match', [
    (b'', 'which no checkpoint does'),
    (b'  <!DOCTYPE html><html>', 'it is a web page'),
    (b'<HTML><body>', 'it is a web page'),
    (b'\xef\xbb\xbf<!DOCTYPE html>', 'it is a web page'),
    (b'<!-- 404 --><html>', 'it is a web page'),
    (b'<?xml version="1.0"?>', 'it is an XML answer'),
    (b'\x1f\x8b\x08\x00', 'it is a gzip archive'),
    (pickle.dumps(np.arange(3), 2), 'it is a bare pickle'),
    (b'version https://git-lfs.github.com/spec/v1', 'run "git lfs pull"'),
    (b'Dear reader, this is a letter.\n', "starts with b'Dear rea'"),
    (torch_bytes({}), 'holds nothing instead of a dict'),
    (torch_bytes([1, 2]), 'holds a list instead of a dict'),
    (torch_bytes(torch.ones(2)), 'holds a Tensor instead of a dict'),
    (torch_bytes(np.arange(3)), 'holds a ndarray instead of a dict'),
])
def test_other_content(tmp_path, data, match):
    with pytest.raises(CheckpointError, match=match):
        read_checkpoint(write(tmp_path, data))


@pytest.mark.parametrize('keys', [[[1]], [1], {}])
def test_storages_of_a_legacy_file_are_names(tmp_path, keys):
    parts = (0x1950A86A20F9469CFC6C, 1001, dict(little_endian=True),
             dict(a=1), keys)
    data = b''.join(pickle.dumps(part, 2) for part in parts)
    with pytest.raises(CheckpointError, match='lists other storages'):
        read_checkpoint(write(tmp_path, data))


@pytest.mark.parametrize('old, new, match', [
    # The list of storages: one more, and none.
    (rb'\]q\x00X', b']q\x00X\x01\x00\x00\x009q\x02aX', 'lists other stor'),
    (rb'\]q\x00X.\0\0\0\d+q\x01a\.', b']q\x00.', 'lists other storages'),
    (rb'\x07\0{7}', struct.pack('<Q', 5), 'damaged at its storage'),
    (rb'little_endianq\x02\x88', b'little_endianq\x02\x89', 'another byte '),
])
def test_storages_of_a_legacy_file_are_those_it_uses(tmp_path, old, new,
                                                     match):
    data = torch_bytes(dict(model={'a': torch.zeros(7)}), legacy=True)
    changed, count = re.subn(old, lambda _: new, data, flags=re.DOTALL)
    assert count == 1
    with pytest.raises(CheckpointError, match=match):
        read_checkpoint(write(tmp_path, changed))


def test_a_system_of_a_legacy_file_that_is_none(tmp_path):
    data = b''.join(pickle.dumps(part, 2) for part in (
        0x1950A86A20F9469CFC6C, 1001, 5, dict(a=1), []))
    with pytest.raises(CheckpointError, match='another byte order'):
        read_checkpoint(write(tmp_path, data))


@pytest.mark.parametrize('name, value, data, match', [
    ('archives.MAX_PICKLE_BYTES', 10, torch_bytes(dict(a=torch.ones(1))),
     'its pickle has 0 MiB, more'),
    ('reading.MAX_FILE_BYTES', 10, torch_bytes(dict(a=torch.ones(1))),
     'it has 0 GiB, more than'),
    ('reading.MAX_HEADER_BYTES', 5, safetensors_bytes(dict(a=1)),
     'header claims 8 bytes'),
    ('reading.MAX_TENSORS', 2, safetensors_bytes(dict(a=1, b=2, c=3)),
     'names 3 tensors, more than the 2'),
], ids=lambda value: value if isinstance(value, str) else '')
def test_files_beyond_every_limit(tmp_path, monkeypatch, name, value, data,
                                  match):
    monkeypatch.setattr(f'apa_mm.weights.{name}', value)
    with pytest.raises(CheckpointError, match=match):
        read_checkpoint(write(tmp_path, data))


@pytest.mark.parametrize('header', [
    b'{"a":' + b'[' * 99_999, b'{"__metadata__": 5}',
    b'{"__metadata__": "a"}'])
def test_headers_that_are_no_json(tmp_path, header):
    with pytest.raises(CheckpointError, match='header is no JSON'):
        read_checkpoint(write(tmp_path, safetensors_bytes(header)))


def test_a_header_without_notes_on_the_meta_device(tmp_path):
    entry = dict(dtype='F32', shape=[1], data_offsets=[0, 4])
    data = safetensors_bytes(dict(a=entry, __metadata__=None), bytes(4))
    raw = read_checkpoint(write(tmp_path, data), 'meta')
    assert raw.metadata == {} and raw.content['a'].is_meta


def test_a_header_longer_than_its_file(tmp_path):
    data = struct.pack('<Q', 99) + b'{"a": 1}'
    with pytest.raises(CheckpointError, match='claims 99 bytes, but the file '
                       'has 16'):
        read_checkpoint(write(tmp_path, data))


@pytest.mark.parametrize('error, match', [
    (MemoryError(), 'there is not enough memory'),
    (OSError(5, 'Input/output error'), 'cannot be read: Input/output error')])
def test_what_the_machine_refuses_is_one_sentence(tmp_path, monkeypatch,
                                                  error, match):

    def fail(*_):
        raise error

    monkeypatch.setattr('apa_mm.weights.reading.read_stream', fail)
    with pytest.raises(CheckpointError, match=match):
        read_checkpoint(write(tmp_path, b''))


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('where, device', [
    (dict(), 'cpu'), (dict(cpu='meta'), 'meta'), ('cpu', 'cpu'),
    (torch.device('meta'), 'meta'), (lambda data, place: None, 'cpu'),
    (lambda data, place: torch.UntypedStorage(1, device=dict(cpu='meta')[
        place]), 'meta'),
], ids=['none', 'map', 'name', 'device', 'left', 'moved'])
def test_tensors_go_where_they_are_wanted(tmp_path, where, device, legacy):
    path = write(tmp_path, torch_bytes(dict(a=torch.ones(3)), legacy))
    if not legacy:
        from safetensors.torch import save_file
        save_file(dict(a=torch.ones(3)), tmp_path / 's.safetensors')
        assert read_checkpoint(tmp_path / 's.safetensors', where).content[
            'a'].device.type == device
    assert read_checkpoint(path, where).content['a'].device.type == device


def test_a_header_that_looks_like_a_web_page(tmp_path):
    """A safetensors file may begin with any bytes: its header's length."""
    header = json.dumps(dict(a=dict(
        dtype='F32', shape=[1], data_offsets=[0, 4])))
    header = header.encode().ljust(int.from_bytes(b' <', 'little'))
    path = write(tmp_path, struct.pack('<Q', len(header)) + header + bytes(4))
    assert read_checkpoint(path).content['a'].tolist() == [0.]


def test_other_archives(tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w') as archive:
        archive.writestr('report.txt', 'hello')
    with pytest.raises(CheckpointError, match='not of the form'):
        read_checkpoint(write(tmp_path, stream.getvalue()))
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), stream)
    with pytest.raises(CheckpointError, match='is a TorchScript program'):
        read_checkpoint(write(tmp_path, stream.getvalue()))


@pytest.mark.parametrize('change, match', [
    (dict(add={'archive/data/0': bytes(48)}), 'not of the form'),
    (dict(add={'other/data/0': bytes(48)}), 'not of the form'),
    (dict(add={'archive/more/data.pkl': b'N.'}), 'not of the form'),
    (dict(drop='archive/data.pkl'), 'not of the form'),
    (dict(drop='archive/data/0'), 'storage 0 claims 48 bytes, but holds 0'),
    (dict(add={'archive/constants.pkl': b''}), 'is a TorchScript program'),
    (dict(add={'archive/byteorder': b'big'}), 'another byte order'),
])
def test_archives_of_another_form(tmp_path, change, match):
    source = zipfile.ZipFile(io.BytesIO(torch_bytes(dict(model=WEIGHTS))))
    entries = [(i.filename, source.read(i)) for i in source.infolist()
               if i.filename not in ('archive/byteorder', change.get('drop'))]
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, 'w') as target:
        warnings.simplefilter('ignore')  # of names that come twice
        for name, value in [*entries, *change.get('add', {}).items()]:
            target.writestr(name, value)
    with pytest.raises(CheckpointError, match=match):
        read_checkpoint(write(tmp_path, stream.getvalue()))


@pytest.mark.parametrize('place, byte, match', [
    (6, 99, 'zip archive has no end'),  # needs a later zip
    (8, 1, 'checksum of its entry'),  # is encrypted
])
def test_archives_that_zipfile_gives_up_on(tmp_path, place, byte, match):
    data = bytearray(torch_bytes(dict(model=WEIGHTS)))
    data[data.index(b'PK\x01\x02') + place] = byte
    with pytest.raises(CheckpointError, match=match):
        read_checkpoint(write(tmp_path, bytes(data)))


def test_files_that_are_not_there(tmp_path):
    for path in (tmp_path / 'absent.pth', tmp_path):
        with pytest.raises(CheckpointError, match='does not exist or is no f'):
            read_checkpoint(path)


def test_mutated_files_end_in_an_error_or_load(tmp_path):
    # Every byte of the format is someone else's: any failure must be ours.
    rng = random.Random(0)
    sources = [torch_bytes(dict(model=WEIGHTS, args=argparse.Namespace(a=1)),
                           legacy) for legacy in (False, True)]
    refused = 0
    for _ in range(150):
        data = bytearray(rng.choice(sources))
        for _ in range(rng.choice([1, 3])):
            place = rng.randrange(len(data))
            if rng.random() < 0.7:
                data[place] = rng.randrange(256)
            else:
                del data[place:place + rng.randrange(1, 9)]
        try:
            read_checkpoint(write(tmp_path, bytes(data)))
        except CheckpointError:
            refused += 1
    assert 50 < refused


# --- the state dict in it ---
@pytest.mark.parametrize('content, match', [
    (dict(epoch=3, lr=0.1), 'holds no state dict .its entries: epoch, lr'),
    (dict(model={}), 'state dict is empty'),
    (dict(model={3: torch.ones(1)}), 'the name 3, which is no text'),
    (dict(model={'a': [1.0]}), "'a' is a list, not a tensor"),
    (dict(model={'a': torch.ones(2, dtype=torch.complex64)}), 'special kind'),
    (dict(model={'a': torch.ones(2, 2).to_sparse()}), 'special kind'),
    (dict(model={'a': torch.ones(1), 'module.a': torch.ones(1)}),
     "'a' is in the file twice"),
    (dict(model={'module.module._orig_mod.a': torch.ones(1),
                 'a': torch.ones(1)}), "'a' is in the file twice"),
])
def test_state_dicts_that_are_none(content, match):
    with pytest.raises(CheckpointError, match=match):
        find_weights(content)


def test_nan_and_infinity_are_found():
    tensors = dict(
        a=torch.ones(3), b=torch.tensor([0, torch.nan]), c=torch.tensor(3),
        d=torch.tensor([-torch.inf]))
    assert check_finite(tensors) == ['b', 'd']


def test_names_of_a_file_cannot_steer_the_terminal(tmp_path):
    path = write(tmp_path, torch_bytes({'\x1b[2J\nerror: forged': 3}))
    with pytest.raises(CheckpointError) as error:
        find_weights(read_checkpoint(path).content)
    assert str(error.value).isprintable() and r'\x1b[2J\n' in str(error.value)
