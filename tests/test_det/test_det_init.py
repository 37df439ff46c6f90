import importlib
import logging

import apa_mm.det
import apa_mm.utils


def test_one_warning_where_mmcv_has_no_ops(monkeypatch):
    warnings = []

    def keep(message, logger=None, level=logging.INFO):
        warnings.append((message, level))

    monkeypatch.setattr('mmengine.logging.print_log', keep)
    importlib.reload(apa_mm.det)
    assert warnings == []
    monkeypatch.setattr(apa_mm.utils, 'HAS_MMDET', False)
    importlib.reload(apa_mm.det)
    assert len(warnings) == 1
    assert 'mmcv has no compiled ops' in warnings[0][0]
    assert warnings[0][1] == logging.WARNING
    monkeypatch.undo()
    importlib.reload(apa_mm.det)
