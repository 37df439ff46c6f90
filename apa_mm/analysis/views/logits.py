"""Logistic or Gumbel: the logits of every class (Fig. 1)."""
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from apa_mm.analysis.classifier import record_classifier
from apa_mm.analysis.errors import AnalysisError
from apa_mm.analysis.loading import (Settings, Source, Subject, load_subject,
                                     run_images)
from apa_mm.analysis.logits import LogitFit, Reservoir, fit_logits
from apa_mm.analysis.runs import View
from apa_mm.utils.checks import check_choice
from apa_mm.analysis.plot_style import drawing, label_axis, line_style

__all__ = ['analyze']

SAMPLES = ('all', 'own')
#: Rows kept per class and in all; an even choice from there on.
CAPACITY = 20000
HISTOGRAM_BINS = 30
ORDER = ('all', 'many', 'frequent', 'medium', 'common', 'few', 'rare')
TEXT = (
    'Logits of one class over the test run, with the logistic and the Gumbel '
    'distribution of greatest likelihood. KS is the Kolmogorov-Smirnov '
    'distance between logits and fit: the smaller one suits. To the right '
    'every class, below the diagonal if Gumbel is nearer.')


class ClassLogits:
    """The logits of every class from a stream, in bounded memory.

    Args:
        num_classes (int): C.
        samples (str): 'all' keeps each class's logit of every row, 'own' of
            the rows whose true class it is.
        capacity (int): Rows to keep, for 'own' per class.
    """

    def __init__(self, num_classes: int, samples: str,
                 capacity: int = CAPACITY) -> None:
        check_choice('samples', samples, SAMPLES)
        self.num_classes, self.own = num_classes, samples == 'own'
        self.stores = [
            Reservoir(capacity, 1, seed) for seed in range(num_classes)
        ] if self.own else [Reservoir(capacity, num_classes)]

    def update(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Add rows: logits (R, C) and true classes (R,)."""
        if not self.own:
            self.stores[0].update(logits)
            return
        for label in np.unique(labels[labels >= 0]):
            self.stores[label].update(logits[labels == label][:, [label]])

    def of(self, label: int) -> np.ndarray:
        """Return the logits kept of one class, (n,)."""
        if self.own:
            return self.stores[label].rows[:, 0]
        return self.stores[0].rows[:, label]


def analyze(sources: Sequence[Source],
            settings: Settings,
            samples: str = 'all',
            classifier: Optional[str] = None) -> View:
    """Fit the logits of every class of some checkpoints.

    Args:
        sources (Sequence[Source]): Checkpoints to overlay.
        settings (Settings): Split, images and groups.
        samples (str): 'all': a class's logits on every image or RoI; 'own':
            on those of that class alone.
        classifier (str, optional): Name of the last layer.

    Returns:
        View: Rows per run and class.

    Raises:
        AnalysisError: If logits are NaN, or no class can be fitted.
    """
    rows: List[Dict[str, Any]] = []
    notes: List[str] = []
    kept: Dict[str, tuple] = {}
    for source in sources:
        subject = load_subject(source, settings)
        notes += [f'{source.name}: {note}' for note in subject.notes]
        store = _collect(subject, samples, classifier)
        mine, fits = _fit(subject, store, notes)
        rows += mine
        kept[source.name] = (_examples(subject, fits), store, fits,
                             subject.classes)
    return View(
        title=f'Class logits against logistic and Gumbel ({samples} samples)',
        text=TEXT,
        metrics={s.name: _metrics([r for r in rows if r['run'] == s.name])
                 for s in sources},
        rows=rows,
        summary=_summary(rows),
        pictures={'logits.png': lambda path: draw(rows, kept, path)},
        notes=notes,
        settings=dict(samples=samples, rows_kept=CAPACITY))


def _collect(subject: Subject, samples: str,
             classifier: Optional[str]) -> ClassLogits:
    store = ClassLogits(len(subject.classes), samples)
    with record_classifier(subject, classifier) as record:
        for batch in run_images(subject, 'logits'):
            found = record.take(batch)
            broken = ~np.isfinite(found.logits.numpy())
            if broken.any():
                first = int(np.nonzero(broken.any(axis=0))[0][0])
                raise AnalysisError(
                    f'{int(broken.sum())} of {broken.size} logits of '
                    f'{subject.source.checkpoint} are NaN or infinite (first '
                    f'class: {subject.classes[first]}), but finite ones are '
                    'needed; look at its weights with '
                    'tools/inspect_checkpoint.py')
            store.update(found.logits.numpy(), found.labels.numpy())
    return store


def _fit(subject: Subject, store: ClassLogits, notes: List[str]) -> tuple:
    rows, fits, few = [], {}, []
    for label, name in enumerate(subject.classes):
        values = store.of(label)
        if len(values) < 2 or np.ptp(values) == 0:
            few.append(f'{name} ({len(values)})')
            fit = LogitFit(len(values), *[np.nan] * 3, (np.nan, ) * 2,
                           (np.nan, ) * 2, np.nan, np.nan)
        else:
            fit = fits[label] = fit_logits(values)
        group = subject.groups.name_of(label) if subject.groups else 'all'
        rows.append(dict(
            run=subject.name, label=label, name=name, group=group,
            count=fit.count, mean=fit.mean, std=fit.std,
            skewness=fit.skewness, ks_logistic=fit.ks_logistic,
            ks_gumbel=fit.ks_gumbel,
            nearer='' if label not in fits else
            'gumbel' if fit.nearer_gumbel else 'logistic'))
    if few:
        notes.append(
            f'{subject.name}: {len(few)} of {len(subject.classes)} classes '
            'have fewer than 2 different logits and no fit, name (samples): '
            + ', '.join(few[:5]) + (', ...' if len(few) > 5 else ''))
    if not fits:
        raise AnalysisError(
            f'none of the {len(rows)} classes of {subject.name} has 2 '
            'different logits; analyse more images, or all samples')
    return rows, fits


def _examples(subject: Subject, fits: Dict[int, LogitFit]) -> List[tuple]:
    """Choose the first class with a fit of each group."""
    groups = subject.groups
    if groups is None:
        return [('all', min(fits))]
    return [(name, next(c for c in fits if groups.index[c] == i))
            for i, name in enumerate(groups.names)
            if any(groups.index[c] == i for c in fits)]


def _summary(rows: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    summary = []
    for run in dict.fromkeys(r['run'] for r in rows):
        mine = [r for r in rows if r['run'] == run]
        for group in dict.fromkeys(['all', *_groups(mine)]):
            some = [r for r in mine if group in ('all', r['group'])]
            fitted = [r for r in some if r['nearer']]
            summary.append(dict(
                run=run, group=group, classes=len(some), fitted=len(fitted),
                nearer_gumbel=_mean([r['nearer'] == 'gumbel'
                                     for r in fitted]),
                **{name: _mean([r[name] for r in fitted])
                   for name in ('ks_logistic', 'ks_gumbel', 'skewness',
                                'mean')}))
    return summary


def _groups(rows: List[Dict[str, Any]]) -> List[str]:
    """Return the groups of some classes from most to least images."""
    return sorted({r['group'] for r in rows}, key=ORDER.index)


def _mean(values: list) -> float:
    return float(np.mean(values)) if values else float('nan')


def _metrics(rows: List[Dict[str, Any]]) -> Dict[str, Any]:
    return dict(
        groups={line['group']: line for line in _summary(rows)},
        classes={r['name']: r for r in rows})


def draw(rows: Sequence[Dict[str, Any]], kept: Dict[str, tuple],
         path: str) -> None:
    """Draw examples of every group, and the distances of all classes.

    Args:
        rows (Sequence[dict]): As in the view.
        kept (dict[str, tuple]): Examples, logits, fits and names by run.
        path (str): PNG to write.
    """
    columns = 1 + max(len(examples) for examples, *_ in kept.values())
    with drawing(path, len(kept), columns, 2.9, 2.5) as (_, axes):
        for line, (run, (examples, store, fits, names)) in zip(
                axes, kept.items(), strict=True):
            for axis, (group, label) in zip(line, examples, strict=False):
                _draw_class(axis, store.of(label), fits[label])
                label_axis(axis, f'{run}: {names[label]} ({group})',
                           'logit', 'density')
            for axis in line[len(examples):-1]:
                axis.set_axis_off()
            _draw_distances(line[-1], [r for r in rows if r['run'] == run])
            label_axis(line[-1], f'{run}: all classes', 'KS to logistic',
                       'KS to Gumbel')


def _draw_class(axis: object, values: np.ndarray, fit: LogitFit) -> None:
    from scipy import stats
    axis.hist(values, bins=HISTOGRAM_BINS, density=True, color='#c9c9c9',
              edgecolor='#8f8f8f', linewidth=0.4)
    x = np.linspace(values.min(), values.max(), 200)
    for number, (name, law, values_of, distance) in enumerate(
            (('logistic', stats.logistic, fit.logistic, fit.ks_logistic),
             ('Gumbel', stats.gumbel_r, fit.gumbel, fit.ks_gumbel))):
        style = dict(line_style(number), marker='')
        axis.plot(x, law.pdf(x, *values_of), **style,
                  label=f'{name}, KS {distance:.3f}')
    axis.legend(loc='upper right', handlelength=1.5, borderpad=0.2)
    # Room for the legend above the curves.
    axis.set_ylim(0, 1.45 * axis.get_ylim()[1])


def _draw_distances(axis: object, rows: List[Dict[str, Any]]) -> None:
    for number, group in enumerate(_groups(rows)):
        mine = [r for r in rows if r['group'] == group and r['nearer']]
        if not mine:
            continue
        style = dict(line_style(number), linestyle='')
        axis.plot([r['ks_logistic'] for r in mine],
                  [r['ks_gumbel'] for r in mine], **style,
                  label=f'{group} ({len(mine)})')
    top = 1.1 * max(max(axis.get_xlim()), max(axis.get_ylim()))
    axis.plot([0, top], [0, top], color='black', linewidth=0.8)
    axis.set_xlim(0, top)
    axis.set_ylim(0, top)
    axis.legend(loc='best', handletextpad=0.2)
