import pytest

from apa_mm.preflight.class_order import class_order_problem

NATIVE = dict(classes=('a', 'b', 'c'), label_order='native')
RANKED = dict(classes=('c', 'a', 'b'), label_order='frequency')


@pytest.mark.parametrize('meta, data', [
    (dict(dataset_meta=NATIVE), NATIVE),
    (dict(dataset_meta=dict(classes=['a', 'b', 'c'])), NATIVE),
    (dict(dataset_meta=dict(classes=['a', 'b', 'c'])), dict(classes='abc')),
    # The ranks of a set that is sorted already are its labels.
    (dict(dataset_meta=NATIVE), dict(NATIVE, label_order='frequency')),
    # Other classes, or another number of them: fine-tuning.
    (dict(dataset_meta=NATIVE), dict(classes=('a', 'b', 'd'))),
    (dict(dataset_meta=RANKED), dict(classes=('b', 'a'))),
    # What no file says cannot be wrong.
    ({}, NATIVE),
    (dict(dataset_meta=None), RANKED),
    (dict(class_order='unknown'), RANKED),
    (dict(class_order='frequency-rank'), RANKED),
    (dict(class_order='native'), NATIVE),
    (dict(class_order='native'), {}),
])
def test_what_is_no_problem(meta, data):
    assert class_order_problem(meta, data) is None


def test_the_same_classes_in_another_order():
    text = class_order_problem(
        dict(dataset_meta=dict(classes=('a', 'b', 'c'))),
        dict(classes=('a', 'c', 'b')))
    assert ("class 1 is 'b' in the checkpoint and 'c' in the data set; "
            "label_order is 'unknown' in the checkpoint and 'native' in the "
            'data set; give the data sets the class order of') in text


@pytest.mark.parametrize('meta, data, order', [
    (dict(dataset_meta=NATIVE), RANKED, 'native'),
    (dict(dataset_meta=RANKED), NATIVE, 'frequency'),
    # Converted files of the authors name the order, but no class.
    (dict(class_order='frequency-rank'), NATIVE, 'frequency'),
    (dict(class_order='native'), RANKED, 'native'),
    # Sets that know no order of their own count natively.
    (dict(class_order='frequency-rank'), dict(classes='abc'), 'frequency'),
    (dict(dataset_meta=RANKED), dict(classes=('0', '1', '2')), 'frequency'),
])
def test_another_label_order(meta, data, order):
    text = class_order_problem(meta, data)
    assert f'set label_order={order!r} on every data set' in text
