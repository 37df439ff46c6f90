"""Entropy, variance and mean of every gate over depth (Fig. 2 and 5)."""
import math
from typing import Any, Dict, List, Sequence

import torch

from apa_mm.functional.attention import GateStats
from apa_mm.layers.gates import GateSums, find_gates, is_spatial, record_gates
from apa_mm.layers.pairs import units_and_gates

from .errors import AnalysisError
from .loading import (Batch, Settings, Source, Subject, load_subjects,
                      run_images)
from .plot_style import drawing, label_axis, line_style
from .runs import View, grouped

__all__ = ['analyze']

MEASURES = (('entropy', 'entropy [bits]'), ('variance', 'variance'),
            ('mean', 'mean gate value'))
TEXT = (
    'Every attention gate of the network, from input to output: the mean '
    'binary entropy of its values (Eq. 4 with logarithms to base 2, 1 if all '
    'values are 1/2, 0 if all are 0 or 1), the variance of its signal, and '
    'its mean. The signal is the mean value of each channel over all images; '
    'its variance over channels is one number per layer (of a spatial gate '
    'the variance over the places of an image). Below, the signals of the '
    'first and the last gate with channels. An image counts for every group '
    'that it shows a class of.')


def analyze(sources: Sequence[Source], settings: Settings) -> View:
    """Measure the gates of some checkpoints: rows per run, layer and group.

    Raises:
        AnalysisError: If a model has no gates, or values outside of [0, 1].
    """
    rows: List[Dict[str, Any]] = []
    notes: List[str] = []
    signals: Dict[str, Dict[str, dict]] = {}
    for subject in load_subjects(sources, settings, notes):
        sums, spatial = _measure(subject, notes)
        groups = ('all', *subject.group_names)
        rows += _rows(subject, sums, spatial, groups)
        with_channels = [name for name in sums.sums if name not in spatial]
        signals[subject.name] = {
            name: dict(zip(groups, sums.signals(name), strict=True))
            for name in dict.fromkeys(with_channels[:1] + with_channels[-1:])
        }
    return View(
        title='Attention entropy, variance and mean per layer',
        text=TEXT,
        metrics={source.name: _metrics(rows, source.name, signals)
                 for source in sources},
        rows=rows,
        summary=_summary(rows),
        pictures={
            'attention.png': lambda path: draw(rows, path),
            'signals.png': lambda path: draw_signals(signals, path)
        },
        notes=notes)


def _group_members(subject: Subject, batch: Batch) -> torch.Tensor:
    """Return which groups every image shows a class of, bool (N, G)."""
    members = torch.zeros(len(batch.labels), len(subject.group_names),
                          dtype=torch.bool)
    if subject.groups is not None:
        for i, labels in enumerate(batch.labels):
            members[i, subject.groups.index[labels]] = True
    return members


def _measure(subject: Subject, notes: List[str]) -> tuple:
    """Return the sums of all gates and the names of the spatial ones."""
    sums = GateSums(len(subject.group_names))
    caught: List[tuple] = []
    spatial, unmatched = set(), set()
    gates = find_gates(subject.model)
    if not gates:
        raise AnalysisError(_no_gates(subject.model))
    with record_gates(subject.model, lambda *c: caught.append(c), gates):
        inside = all(n.startswith(('backbone.', 'neck.')) for n in gates)
        for batch in run_images(subject, 'attention', features_only=inside):
            members = _group_members(subject, batch)
            for name, values in caught:
                if is_spatial(values):
                    spatial.add(name)
                fits = len(values) == len(members)
                try:
                    sums.update(name, values, members if fits else None)
                except ValueError as error:
                    raise AnalysisError(str(error)) from None
                if not fits:
                    unmatched.add(name)
            caught.clear()
    silent = [name for name in gates if name not in sums.sums]
    for names, what in (
        (sorted(unmatched), 'do not answer once per image, so that they have '
         'no groups'), (silent, 'were never used')):
        if names:
            notes.append(f'{subject.name}: {len(names)} gates {what}: '
                         + ', '.join(names[:3]))
    return sums, spatial


def _no_gates(model: torch.nn.Module) -> str:
    others = ['logits', 'collapse', 'calibration', 'gradcam']
    if units_and_gates(model):
        others.insert(0, 'parameters')
    return (f'{type(model).__name__} has no attention gate, but SE, CBAM or '
            'spatial attention was expected; of this model '
            f'{", ".join(others)} can be analysed')


def _rows(subject: Subject, sums: GateSums, spatial: set,
          groups: Sequence[str]) -> List[Dict[str, Any]]:
    return [
        dict(
            run=subject.name,
            depth=depth,
            gate=name,
            kind='spatial' if name in spatial else 'channel',
            group=group,
            **stats._asdict())
        for depth, (name, found) in enumerate(sums.result().items(), 1)
        for group, stats in zip(groups, found, strict=True)
    ]


def _metrics(rows: List[Dict[str, Any]], run: str,
             signals: Dict[str, Dict[str, dict]]) -> Dict[str, Any]:
    gates: Dict[str, Any] = {}
    for row in grouped(rows, 'run')[run, ]:
        gates.setdefault(row['gate'], {})[row['group']] = {
            key: row[key] for key in GateStats._fields}
    for name, groups in signals[run].items():
        for group, signal in groups.items():
            gates[name][group]['signal'] = signal
    return gates


def _summary(rows: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Average over layers, one line per run and group."""
    summary = []
    for (run, group), mine in grouped(rows, 'run', 'group').items():
        line = dict(run=run, group=group, images=mine[0]['images'],
                    gates=len(mine))
        for name, _ in MEASURES:
            line[name] = sum(r[name] for r in mine) / len(mine)
        line['last_entropy'] = mine[-1]['entropy']
        summary.append(line)
    return summary


def draw(rows: Sequence[Dict[str, Any]], path: str) -> None:
    """Draw one row of panels per measure, one column per group."""
    groups = grouped(rows, 'group')
    mixed = len(grouped(rows, 'kind')) > 1
    with drawing(path, len(MEASURES), len(groups), 2.7, 2.1, sharex=True,
                 sharey='row') as (figure, axes):
        for i, (measure, unit) in enumerate(MEASURES):
            for j, ((group, ), some) in enumerate(groups.items()):
                axis = axes[i][j]
                lines = grouped(some, 'run', 'kind')
                for number, (line, mine) in enumerate(lines.items()):
                    axis.plot([r['depth'] for r in mine],
                              [r[measure] for r in mine],
                              label=', '.join(line) if mixed else line[0],
                              **line_style(number))
                images = max(r['images'] for r in some)
                label_axis(
                    axis,
                    f'{group} ({images} images)' if i == 0 else '',
                    'gate, from input to output'
                    if i == len(MEASURES) - 1 else '',
                    unit if j == 0 else '')
                axis.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(*axes[0][0].get_legend_handles_labels(),
                      loc='outside upper center', ncols=3)


def draw_signals(signals: Dict[str, Dict[str, dict]], path: str) -> None:
    """Draw the signals of the first and the last gate, one row per run."""
    with drawing(path, len(signals), 2, 4.2, 2.3) as (figure, axes):
        for line, (run, gates) in zip(axes, signals.items(), strict=True):
            for axis in line[len(gates):]:
                axis.set_axis_off()
            for axis, (name, groups) in zip(line, gates.items(),
                                            strict=False):
                for number, (group, signal) in enumerate(groups.items()):
                    if not any(map(math.isfinite, signal)):
                        continue  # no image of the group
                    axis.plot(signal, label=group, linewidth=0.8,
                              color=line_style(number)['color'],
                              linestyle=line_style(number)['linestyle'])
                label_axis(axis, f'{run}: {name.removeprefix("backbone.")}',
                           'channel', 'mean gate value')
        figure.legend(*axes[0][0].get_legend_handles_labels(),
                      loc='outside upper center', ncols=4)
