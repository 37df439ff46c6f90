r"""Are the logits of a class logistic or Gumbel distributed (Fig. 1)?

SciPy fits both by maximum likelihood and gives the Kolmogorov-Smirnov distance
of the logits to each. The logistic distribution function is the sigmoid, the
Gumbel one :math:`\exp(-\exp(-x))` is APA at lambda = 0: the nearer one suits
the logits.

Legend: n values of one class.
"""
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy as np
from numpy import ndarray

from .classifier import record_classifier
from .errors import AnalysisError, check_finite
from .loading import Settings, Source, Subject, load_subjects, run_images
from .plot_style import drawing, label_axis, line_style
from .reservoir import CAPACITY, ClassLogits
from .runs import View, grouped

__all__ = ['LogitFit', 'analyze', 'fit_logits']

HISTOGRAM_BINS = 30
ORDER = ('all', 'many', 'frequent', 'medium', 'common', 'few', 'rare')
TEXT = (
    'Logits of one class over the test run, with the logistic and the Gumbel '
    'distribution of greatest likelihood. KS is the Kolmogorov-Smirnov '
    'distance between logits and fit: the smaller one suits. To the right '
    'every class, below the diagonal if Gumbel is nearer.')


class LogitFit(NamedTuple):
    """Two distributions fitted to the logits of one class.

    ``skewness`` is 0 for the logistic, 1.1395 for the Gumbel distribution;
    ``logistic`` and ``gumbel`` are location and scale, ``ks_...`` the
    distances in [0, 1].
    """

    count: int
    mean: float
    std: float
    skewness: float
    logistic: tuple
    gumbel: tuple
    ks_logistic: float
    ks_gumbel: float

    @property
    def nearer_gumbel(self) -> bool:
        """bool: Whether the Gumbel distribution is nearer."""
        return self.ks_gumbel < self.ks_logistic


def fit_logits(values: ndarray) -> LogitFit:
    """Fit a logistic and a Gumbel distribution to the logits of one class.

    Args:
        values (ndarray): (n,), at least 2 different ones.

    Raises:
        AnalysisError: If there are fewer than 2 different values, or one is
            NaN or infinite.

    Example:
        >>> x = np.linspace(0.0005, 0.9995, 1000)
        >>> fit = fit_logits(-np.log(-np.log(x)))
        >>> fit.nearer_gumbel, round(fit.ks_gumbel, 3)
        (True, 0.001)
    """
    from scipy import stats
    values = np.asarray(values, dtype=np.float64)
    check_finite(values, 'logits')
    if len(values) < 2 or np.ptp(values) == 0:
        raise AnalysisError(
            'fitting a distribution needs at least 2 different logits, but '
            f'got {len(values)} of value {values[:1]}; analyse more images')
    laws = (stats.logistic, stats.gumbel_r)
    fits = [tuple(map(float, law.fit(values))) for law in laws]
    distances = [float(stats.ks_1samp(values, law.cdf, args=fit).statistic)
                 for law, fit in zip(laws, fits, strict=True)]
    return LogitFit(
        len(values), float(values.mean()), float(values.std()),
        float(stats.skew(values)), *fits, *distances)


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

    Raises:
        AnalysisError: If logits are NaN, or no class can be fitted.
    """
    rows: List[Dict[str, Any]] = []
    notes: List[str] = []
    kept: Dict[str, tuple] = {}
    for subject in load_subjects(sources, settings, notes):
        store = _collect(subject, samples, classifier)
        mine, fits = _fit(subject, store, notes)
        rows += mine
        kept[subject.name] = (_examples(subject, fits), store, fits,
                             subject.classes)
    return View(
        title=f'Class logits against logistic and Gumbel ({samples} samples)',
        text=TEXT,
        metrics={s.name: _metrics([r for r in rows if r['run'] == s.name])
                 for s in sources},
        rows=rows,
        summary=_summary(rows),
        pictures={'logits.png': lambda path: _draw(rows, kept, path)},
        notes=notes,
        settings=dict(samples=samples, rows_kept=CAPACITY))


def _collect(subject: Subject, samples: str,
             classifier: Optional[str]) -> ClassLogits:
    store = ClassLogits(len(subject.classes), samples)
    with record_classifier(subject, classifier) as record:
        for batch in run_images(subject, 'logits'):
            found = record.take(batch)
            check_finite(found.logits,
                         f'logits of {subject.source.checkpoint}')
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
        rows.append(dict(
            run=subject.name, label=label, name=name,
            group=subject.group_of(label, 'all'),
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
    for (run, ), mine in grouped(rows, 'run').items():
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


def _draw(rows: Sequence[Dict[str, Any]], kept: Dict[str, tuple],
          path: str) -> None:
    """Draw examples of every group, and the distances of all classes."""
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
