"""What the names in a checkpoint build looks at every argument."""
import io

import numpy as np
import pytest
from mmengine.logging import HistoryBuffer
from support.checkpoint_attacks import archive, long_int, under_model
from support.pickle_fuzz import Writer

from apa_mm.weights import (CheckpointError, constructors, pickles,
                            read_checkpoint)

WRITER = Writer(None)
STORAGE = [WRITER.text('storage'), WRITER.name('torch.FloatStorage'),
           WRITER.text('0'), WRITER.text('cpu'), b'K\x02']
PID = b'(' + b''.join(STORAGE) + b'tQ'
ONE_TENSOR = [PID, b'K\x00', b'K\x02\x85', b'K\x01\x85', b'\x89', b'N']


def load_pickle(tmp_path, value):
    path = tmp_path / 'file.pth'
    path.write_bytes(archive(under_model(value), _0=bytes(8)))
    return read_checkpoint(str(path)).content['model']


@pytest.mark.parametrize('place, part', [
    (0, b'K\x01'), (0, WRITER.text('module')), (1, b'N'),
    (1, WRITER.text('FloatStorage')), (1, WRITER.name('numpy.ndarray')),
    (2, b'K\x00'), (3, b'N'), (4, b'\x88'), (4, WRITER.text('2')),
    (4, long_int(-1)), (4, long_int(2**62)), (5, b')'), (slice(4, 5), b''),
    (slice(5, 5), b'NN'), (slice(5, 5), b'N')])
def test_references_to_data_are_those_of_torch(tmp_path, place, part):
    parts = list(STORAGE) + [b''] * (place == 5)
    parts[place] = [part] if isinstance(place, slice) else part
    value = WRITER.call('torch._utils._rebuild_tensor_v2', b'(' + b''.join(
        parts) + b'tQ', *ONE_TENSOR[1:])
    if part == b'N' and isinstance(place, slice):  # no view of it
        assert load_pickle(tmp_path, value).tolist() == [0, 0]
    else:
        with pytest.raises(CheckpointError, match='refers to data in a way'):
            load_pickle(tmp_path, value)
    with pytest.raises(CheckpointError, match='refers to data in a way'):
        load_pickle(tmp_path, b'K\x01Q')


@pytest.mark.parametrize('place, part', [
    (0, WRITER.name('torch.FloatStorage')), (1, long_int(-1)),
    (1, b'\x88'), (1, long_int(2**62)), (2, b']K\x02a'), (3, b']K\x01a'),
    (2, b')'), (3, b'K\x01K\x01\x86'), (3, long_int(-1) + b'\x85'),
    (6, b'}K\x01K\x01s'), (slice(2, 4), b'(' + b'K\x00' * 65 + b't' + b'(' +
                           b'K\x00' * 65 + b't')])
def test_tensors_are_those_of_torch(tmp_path, place, part):
    parts = list(ONE_TENSOR) + [b''] * (place == 6)
    assert load_pickle(tmp_path, WRITER.call(
        'torch._utils._rebuild_tensor_v2', *ONE_TENSOR)).tolist() == [0, 0]
    parts[place] = [part] if isinstance(place, slice) else part
    with pytest.raises(CheckpointError, match='its tensors is none of torch'):
        load_pickle(tmp_path, WRITER.call(
            'torch._utils._rebuild_tensor_v2', *parts))


def test_claims_of_all_storages_add_up():
    parts = [*STORAGE[:2], b'', STORAGE[3], b'K\x64']  # 100 floats
    code = b'\x80\x02('
    for key in 'ab':
        parts[2] = WRITER.text(key)
        code += b'(' + b''.join(parts) + b'tQ'
    for number, match in ((801, None), (799, 'header claims 800 bytes')):
        load = pickles.WeightsUnpickler(
            io.BytesIO(code + b't.'), number, lambda *_: None).load
        if match is None:
            assert load() == (None, None)
        else:
            with pytest.raises(CheckpointError, match=match):
                load()


@pytest.mark.parametrize('storage, dtype', [
    (PID, b'N'), (PID, WRITER.name('torch.FloatStorage')),
    (PID, WRITER.name('torch.quint8')), (PID, WRITER.name('torch.qint32')),
    (b'N', WRITER.name('torch.float32'))])
def test_tensors_with_a_type_of_their_own(tmp_path, storage, dtype):
    with pytest.raises(CheckpointError, match='its tensors is none of torch'):
        load_pickle(tmp_path, WRITER.call(
            'torch._utils._rebuild_tensor_v3', storage, *ONE_TENSOR[1:],
            dtype))


EIGHT = np.dtype('f8')
ARRAYS = [np.zeros(2), np.ones(2)]


@pytest.mark.parametrize('name, args, match', [
    ('numpy.core.multiarray.scalar', (5, b'1'), 'another size'),
    ('numpy.core.multiarray.scalar', (EIGHT, 'eight by'), 'another size'),
    ('numpy.core.multiarray.scalar', (EIGHT, b'seven b'), 'another size'),
    ('numpy.dtype', ('V8', ), "kind 'V8'"),
    ('builtins.slice', ('a', ), 'slice that is none'),
    ('builtins.slice', (1, (2, )), 'slice that is none'),
    ('torch.Size', ((-1, ), ), 'size that is none'),
    ('torch.Size', ((True, ), ), 'size that is none'),
    ('torch.Size', ((2**62, ), ), 'size that is none'),
    ('collections.Counter', ([1], ), 'without counts'),
    ('collections.Counter', ({1: 'a'}, ), 'without counts'),
    ('collections.OrderedDict', ([((1, ), 2)], ), 'has a tuple where'),
    ('builtins.set', ([(1, )], ), 'has a tuple where'),
    ('builtins.frozenset', ([b'a'], ), 'has a bytes where'),
    ('_codecs.encode', (b'a', ), 'bytes are not written'),
    ('_codecs.encode', ('a', 'rot13'), 'bytes are not written'),
    ('torch._tensor._rebuild_from_type_v2', (print, int, (), {}), 'its own'),
    ('builtins.getattr', ('HistoryBuffer', 'mean'), 'asks for attribute'),
])
def test_constructors_look_at_every_argument(name, args, match):
    with pytest.raises(CheckpointError, match=match):
        constructors.Constructors(10**4).answers[name](*args)


@pytest.mark.parametrize('name, args', [
    ('_codecs.encode', ('abc', )), ('torch.Size', ((1, 2, 3), )),
    ('collections.Counter', ({1: 1, 2: 2, 3: 3}, )),
    ('collections.OrderedDict', ([(1, 2), (3, 4), (5, 6)], )),
    ('builtins.set', ([1, 2, 3], )),
])
def test_copies_are_counted(name, args):
    made = constructors.Constructors(100)
    made._work = 2**20 - 3
    made.answers[name](*args)
    assert made._work == 2**20
    with pytest.raises(CheckpointError, match='again and again'):
        made.answers[name](*args)


def test_states_are_counted(tmp_path, monkeypatch):
    spent = []
    monkeypatch.setattr(constructors.Constructors, 'spend',
                        lambda self, items: spent.append(items))
    load_pickle(tmp_path, b'cargparse\nNamespace\n)\x81}(X\x01\x00\x00\x00aN'
                b'X\x01\x00\x00\x00bNub')
    assert spent == [2]


@pytest.mark.parametrize('change', [
    dict(_log_history=[1, 2]), dict(_count_history=[1, 1]),
    dict(_log_history=np.zeros(3)),
    dict(_log_history=np.zeros((2, 1)), _count_history=np.ones((2, 1))),
    dict(max_length='9')])
def test_logs_hold_scalars(change):
    state = dict(max_length=9, _log_history=ARRAYS[0],
                 _count_history=ARRAYS[1])
    buffer = HistoryBuffer()
    constructors.fill_history(buffer, dict(state))
    assert buffer.mean() == 0
    with pytest.raises(CheckpointError, match='other values than scalars'):
        constructors.fill_history(buffer, dict(state, **change))


@pytest.mark.parametrize('place, part', [
    (1, [2]), (1, (-2, )), (1, (True, )), (2, 'f8'), (3, 0),
    (4, b'0' * 15), (4, 'a' * 16), (1, (1, ) * 33 + (2, ))])
def test_arrays_hold_exactly_their_bytes(place, part):
    state = [1, (2, ), EIGHT, False, bytes(16)]
    array = np.empty(0)
    constructors.fill_array(array, tuple(state))
    assert array.tolist() == [0, 0]
    state[place] = part
    with pytest.raises(CheckpointError, match='another size than its bytes'):
        constructors.fill_array(array, tuple(state))
