"""Entropy, variance and mean of every gate over depth (Fig. 2 and 5)."""
from typing import Any, Dict, List, Sequence

import torch

from apa_mm.analysis.attention import GateSums
from apa_mm.analysis.gates import find_gates, is_spatial, record_gates
from apa_mm.analysis.loading import (Batch, Settings, Source, Subject,
                                     load_subject, run_images)
from apa_mm.analysis.runs import View
from apa_mm.analysis.plot_style import drawing, label_axis, line_style

__all__ = ['analyze', 'group_members']

MEASURES = (('entropy', 'entropy [bits]'), ('variance', 'variance'),
            ('mean', 'mean gate value'))
TEXT = (
    'Every attention gate of the network, from input to output: the mean '
    'binary entropy of its values (Eq. 4 with logarithms to base 2, 1 if all '
    'values are 1/2, 0 if all are 0 or 1), their variance over images and '
    'channels, and their mean. An image counts for every group that it shows '
    'a class of.')


def analyze(sources: Sequence[Source], settings: Settings) -> View:
    """Measure the gates of some checkpoints.

    Args:
        sources (Sequence[Source]): Checkpoints to overlay.
        settings (Settings): Split, images and groups.

    Returns:
        View: Rows per run, layer and group.

    Raises:
        AnalysisError: If a model has no gates.
    """
    rows: List[Dict[str, Any]] = []
    notes: List[str] = []
    for source in sources:
        subject = load_subject(source, settings)
        notes += [f'{source.name}: {note}' for note in subject.notes]
        rows += _measure(subject, notes)
    return View(
        title='Attention entropy, variance and mean per layer',
        text=TEXT,
        metrics={source.name: _metrics(rows, source.name)
                 for source in sources},
        rows=rows,
        summary=_summary(rows),
        pictures={'attention.png': lambda path: draw(rows, path)},
        notes=notes)


def group_members(subject: Subject, batch: Batch) -> torch.Tensor:
    """Return which groups every image shows a class of, bool (N, G)."""
    members = torch.zeros(len(batch.labels), len(subject.group_names),
                          dtype=torch.bool)
    if subject.groups is not None:
        for i, labels in enumerate(batch.labels):
            members[i, subject.groups.index[labels]] = True
    return members


def _measure(subject: Subject, notes: List[str]) -> List[Dict[str, Any]]:
    sums = GateSums(len(subject.group_names))
    caught: List[tuple] = []
    spatial, unmatched = set(), set()
    gates = find_gates(subject.model)
    with record_gates(subject.model, lambda *c: caught.append(c), gates):
        inside = all(n.startswith(('backbone.', 'neck.')) for n in gates)
        for batch in run_images(subject, 'attention', features_only=inside):
            members = group_members(subject, batch)
            for name, values in caught:
                if is_spatial(values):
                    spatial.add(name)
                fits = len(values) == len(members)
                sums.update(name, values, members if fits else None)
                if not fits:
                    unmatched.add(name)
            caught.clear()
    if unmatched:
        notes.append(
            f'{subject.name}: {len(unmatched)} gates do not answer once per '
            'image, so that they have no groups: ' + ', '.join(
                sorted(unmatched)[:3]))
    silent = [name for name in gates if name not in sums.sums]
    if silent:
        notes.append(f'{subject.name}: {len(silent)} gates were never used: '
                     + ', '.join(silent[:3]))
    return [
        dict(
            run=subject.name,
            depth=depth,
            gate=name,
            kind='spatial' if name in spatial else 'channel',
            group=group,
            **stats._asdict())
        for depth, (name, groups) in enumerate(sums.result().items(), 1)
        for group, stats in zip(('all', *subject.group_names), groups,
                                strict=True)
    ]


def _metrics(rows: List[Dict[str, Any]], run: str) -> Dict[str, Any]:
    gates: Dict[str, Any] = {}
    for row in rows:
        if row['run'] == run:
            gates.setdefault(row['gate'], {})[row['group']] = {
                key: row[key]
                for key in ('images', 'values', 'mean', 'variance', 'entropy')
            }
    return gates


def _summary(rows: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Average over layers, one line per run and group."""
    summary = []
    for run, group in dict.fromkeys((r['run'], r['group']) for r in rows):
        mine = [r for r in rows if (r['run'], r['group']) == (run, group)]
        line = dict(run=run, group=group, images=mine[0]['images'],
                    gates=len(mine))
        for name, _ in MEASURES:
            line[name] = sum(r[name] for r in mine) / len(mine)
        line['last_entropy'] = mine[-1]['entropy']
        summary.append(line)
    return summary


def draw(rows: Sequence[Dict[str, Any]], path: str) -> None:
    """Draw one row of panels per measure, one column per group.

    Args:
        rows (Sequence[dict]): As in the view.
        path (str): PNG to write.
    """
    groups = list(dict.fromkeys(r['group'] for r in rows))
    lines = list(dict.fromkeys((r['run'], r['kind']) for r in rows))
    mixed = len({kind for _, kind in lines}) > 1
    with drawing(path, len(MEASURES), len(groups), 2.7, 2.1, sharex=True,
                 sharey='row') as (figure, axes):
        for i, (measure, unit) in enumerate(MEASURES):
            for j, group in enumerate(groups):
                axis = axes[i][j]
                for number, (run, kind) in enumerate(lines):
                    mine = [r for r in rows
                            if (r['run'], r['kind'], r['group'])
                            == (run, kind, group)]
                    axis.plot([r['depth'] for r in mine],
                              [r[measure] for r in mine],
                              label=f'{run}, {kind}' if mixed else run,
                              **line_style(number))
                images = max(r['images'] for r in rows if r['group'] == group)
                label_axis(
                    axis,
                    f'{group} ({images} images)' if i == 0 else '',
                    'gate, from input to output'
                    if i == len(MEASURES) - 1 else '',
                    unit if j == 0 else '')
                axis.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(*axes[0][0].get_legend_handles_labels(),
                      loc='outside upper center', ncols=3)
