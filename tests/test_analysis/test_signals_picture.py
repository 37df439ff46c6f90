"""Fig. 2 and 5: the signals of the first and the last gate."""
import math

import pytest
from matplotlib.figure import Figure

from apa_mm.analysis.attention import _draw_signals


def test_every_channel_of_every_group_is_drawn(tmp_path, monkeypatch):
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, 'savefig', lambda figure, *args, **kwargs: (
        figures.append(figure), save(figure, *args, **kwargs)))
    first, last = [.1, .9, .4], [.2, .3, .8, .7]
    _draw_signals({
        'APA*': {
            'backbone.layer1.0.gate': dict(all=first, few=[math.nan] * 3),
            'backbone.layer4.1.gate': dict(all=last, few=last[::-1])
        },
        'SE': {'backbone.layer1.0.gate': dict(all=first)}
    }, str(tmp_path / 'signals.png'))
    panels = figures[0].axes
    lines = [[(line.get_label(), line.get_ydata().tolist())
              for line in axis.lines] for axis in panels]
    assert lines == [
        [('all', pytest.approx(first))],  # no image of the group "few"
        [('all', pytest.approx(last)), ('few', pytest.approx(last[::-1]))],
        [('all', pytest.approx(first))],
        [],
    ]
    assert [axis.get_title(loc='left') for axis in panels] == [
        'APA*: layer1.0.gate', 'APA*: layer4.1.gate', 'SE: layer1.0.gate', '']
    assert not panels[3].axison
