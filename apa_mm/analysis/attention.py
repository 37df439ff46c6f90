"""Entropy, variance and mean of every gate over depth (Fig. 2 and 5)."""
import math
from functools import partial
from typing import Dict, List, Sequence

import torch

from apa_mm.layers.gates import GateSums, find_gates, is_spatial, record_gates
from apa_mm.layers.pairs import units_and_gates

from .errors import AnalysisError
from .loading import (Batch, Settings, Source, Subject, load_subjects,
                      run_images)
from .plot_style import drawing, legend_above, line_style
from .runs import Row, View, grouped

MEASURES = dict(entropy='entropy [bits]', variance='variance',
                mean='mean gate value')
TEXT = (
    'Every attention gate of the network, from input to output: the mean '
    'binary entropy of its values (Eq. 4 with logarithms to base 2, 1 if all '
    'values are 1/2, 0 if all are 0 or 1), the variance of its signal, and '
    'its mean. The signal is the mean value of each channel over all images; '
    'its variance over channels is one number per layer (of a spatial gate '
    'the variance over the places of an image). Below, the signals of the '
    'first and the last gate with channels. An image counts for every group '
    'that it shows a class of.')
#: The signal of each group, by run and gate.
Signals = Dict[str, Dict[str, Dict[str, list]]]


def analyze(sources: Sequence[Source], settings: Settings) -> View:
    """Measure the gates of some checkpoints: rows per run, layer and group."""
    view = View('Attention entropy, variance and mean per layer', TEXT)
    signals: Signals = {}
    for subject in load_subjects(sources, settings, view.notes):
        sums, spatial = _measure(subject, view.notes)
        groups = ('all', *subject.group_names)
        gates = {name: dict(zip(groups, [stats._asdict() for stats in found],
                                strict=True))
                 for name, found in sums.result().items()}
        view.rows += [
            dict(run=subject.name, depth=depth, gate=name,
                 kind='spatial' if name in spatial else 'channel',
                 group=group, **stats)
            for depth, (name, found) in enumerate(gates.items(), 1)
            for group, stats in found.items()]
        with_channels = [name for name in gates if name not in spatial]
        mine = signals[subject.name] = {}
        for name in dict.fromkeys(with_channels[:1] + with_channels[-1:]):
            mine[name] = dict(zip(groups, sums.signals(name), strict=True))
            for group, signal in mine[name].items():
                gates[name][group]['signal'] = signal
        view.metrics[subject.name] = gates
    view.summary = _summary(view.rows)
    view.pictures = {'attention.png': partial(_draw, view.rows),
                     'signals.png': partial(_draw_signals, signals)}
    return view


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
        others = ['logits', 'collapse', 'calibration', 'gradcam']
        if units_and_gates(subject.model):
            others.insert(0, 'parameters')
        raise AnalysisError(
            f'{type(subject.model).__name__} has no attention gate, but SE, '
            'CBAM or spatial attention was expected; of this model '
            f'{", ".join(others)} can be analysed')
    with record_gates(subject.model, lambda *c: caught.append(c), gates):
        inside = all(n.startswith(('backbone.', 'neck.')) for n in gates)
        for batch in run_images(subject, 'attention', features_only=inside):
            members = _group_members(subject, batch)
            for name, values in caught:
                if is_spatial(values):
                    spatial.add(name)
                fits = len(values) == len(members)
                if not fits:
                    unmatched.add(name)
                try:
                    sums.update(name, values, members if fits else None)
                except ValueError as error:
                    raise AnalysisError(str(error)) from None
            caught.clear()
    silent = [name for name in gates if name not in sums.sums]
    for names, what in (
        (sorted(unmatched), 'do not answer once per image, so that they have '
         'no groups'), (silent, 'were never used')):
        if names:
            notes.append(f'{subject.name}: {len(names)} gates {what}: '
                         + ', '.join(names[:3]))
    return sums, spatial


def _summary(rows: Sequence[Row]) -> List[Row]:
    """Average over layers, one line per run and group."""
    return [
        dict(run=run, group=group, images=mine[0]['images'], gates=len(mine),
             **{m: sum(r[m] for r in mine) / len(mine) for m in MEASURES},
             last_entropy=mine[-1]['entropy'])
        for (run, group), mine in grouped(rows, 'run', 'group').items()
    ]


def _draw(rows: Sequence[Row], path: str) -> None:
    """Draw one row of panels per measure, one column per group."""
    groups = grouped(rows, 'group')
    mixed = len(grouped(rows, 'kind')) > 1
    with drawing(path, len(MEASURES), len(groups), 2.7, 2.1, sharex=True,
                 sharey='row') as (figure, axes):
        for line, (measure, unit) in zip(axes, MEASURES.items(), strict=True):
            for axis, some in zip(line, groups.values(), strict=True):
                lines = grouped(some, 'run', 'kind')
                for number, (names, mine) in enumerate(lines.items()):
                    axis.plot([r['depth'] for r in mine],
                              [r[measure] for r in mine],
                              label=', '.join(names) if mixed else names[0],
                              **line_style(number))
                axis.xaxis.get_major_locator().set_params(integer=True)
            line[0].set_ylabel(unit)
        for j, ((group, ), some) in enumerate(groups.items()):
            images = max(r['images'] for r in some)
            axes[0][j].set_title(f'{group} ({images} images)')
            axes[-1][j].set_xlabel('gate, from input to output')
        legend_above(figure, axes, 3)


def _draw_signals(signals: Signals, path: str) -> None:
    """Draw the signals of the first and the last gate, one row per run."""
    with drawing(path, len(signals), 2, 4.2, 2.3) as (figure, axes):
        for line, (run, gates) in zip(axes, signals.items(), strict=True):
            for axis in line[len(gates):]:
                axis.set_axis_off()
            for axis, (name, groups) in zip(line, gates.items(), strict=False):
                for number, (group, signal) in enumerate(groups.items()):
                    if any(map(math.isfinite, signal)):  # the group has images
                        style = dict(line_style(number), marker='')
                        axis.plot(signal, label=group, **style, linewidth=0.8)
                axis.set(title=f'{run}: {name.removeprefix("backbone.")}',
                         xlabel='channel', ylabel='mean gate value')
        legend_above(figure, axes, 4)
