r"""Are the logits of a class logistic or Gumbel distributed (Fig. 1)?

SciPy fits both by maximum likelihood and gives the Kolmogorov-Smirnov distance
of the logits to each. The logistic distribution function is the sigmoid, the
Gumbel one :math:`\exp(-\exp(-x))` is APA at lambda = 0: the nearer one suits
the logits.
"""
from typing import Dict, List, NamedTuple, Optional, Sequence

import numpy as np
from numpy import ndarray

from apa_mm.utils.tables import show

from .classifier import record_classifier
from .errors import AnalysisError, check_finite
from .loading import Settings, Source, Subject, load_subjects, run_images
from .plot_style import drawing, line_style
from .reservoir import CAPACITY, ClassLogits
from .runs import Row, View, grouped

HISTOGRAM_BINS = 30
ORDER = ('all', 'many', 'frequent', 'medium', 'common', 'few', 'rare')
TEXT = (
    'Logits of one class over the test run, with the logistic and the Gumbel '
    'distribution of greatest likelihood. KS is the Kolmogorov-Smirnov '
    'distance between logits and fit: the smaller one suits. To the right '
    'every class, below the diagonal if Gumbel is nearer.')


class LogitFit(NamedTuple):
    """Two distributions fitted to the logits of one class; NaN without fit."""

    count: int
    mean: float = np.nan
    std: float = np.nan
    skewness: float = np.nan  # logistic distribution 0, Gumbel 1.1395
    logistic: tuple = ()  # location and scale
    gumbel: tuple = ()
    ks_logistic: float = np.nan  # distance in [0, 1]
    ks_gumbel: float = np.nan

    @property
    def nearer_gumbel(self) -> bool:
        """bool: Whether the Gumbel distribution is nearer."""
        return self.ks_gumbel < self.ks_logistic


def fit_logits(values: ndarray) -> LogitFit:
    """Fit a logistic and a Gumbel distribution to one class's logits (n,).

    They must be finite and not all the same.

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
    return LogitFit(len(values), float(values.mean()), float(values.std()),
                    float(stats.skew(values)), *fits, *distances)


def analyze(sources: Sequence[Source], settings: Settings,
            samples: str = 'all', classifier: Optional[str] = None) -> View:
    """Fit the logits of every class of some checkpoints.

    ``samples`` 'all' takes a class's logits on every image or RoI, 'own' on
    those of that class alone.
    """
    view = View(
        f'Class logits against logistic and Gumbel ({samples} samples)', TEXT,
        settings=dict(samples=samples, rows_kept=CAPACITY))
    kept: Dict[str, tuple] = {}
    for subject in load_subjects(sources, settings, view.notes):
        store = ClassLogits(len(subject.classes), samples)
        with record_classifier(subject, classifier) as record:
            for batch in run_images(subject, 'logits'):
                _, logits, labels = record.take(batch)
                check_finite(logits, f'logits of {subject.source.checkpoint}')
                store.update(logits.numpy(), labels.numpy())
        rows, fits = _fit(subject, store, view.notes)
        summary = _summary(rows)
        view.rows += rows
        view.summary += summary
        view.metrics[subject.name] = dict(
            groups={line['group']: line for line in summary},
            classes={r['name']: r for r in rows})
        kept[subject.name] = (_examples(subject, fits), store, fits,
                              subject.classes)
    view.pictures = {'logits.png': lambda path: _draw(view.rows, kept, path)}
    return view


def _fit(subject: Subject, store: ClassLogits, notes: List[str]) -> tuple:
    rows, fits, few = [], {}, []
    for label, name in enumerate(subject.classes):
        values = store.of(label)
        if len(values) < 2 or np.ptp(values) == 0:
            few.append(f'{name} ({len(values)})')
            fit = LogitFit(len(values))
        else:
            fit = fits[label] = fit_logits(values)
        rows.append(dict(
            run=subject.name, label=label, name=name,
            group=subject.group_of(label, 'all'),
            **{key: value for key, value in fit._asdict().items()
               if key not in ('logistic', 'gumbel')},
            nearer='' if label not in fits else
            'gumbel' if fit.nearer_gumbel else 'logistic'))
    if few:
        notes.append(
            f'{subject.name}: {len(few)} of {len(subject.classes)} classes '
            'have fewer than 2 different logits and no fit, name (samples): '
            + show(few, 5))
    if not fits:
        raise AnalysisError(
            f'none of the {len(rows)} classes of {subject.name} has 2 '
            'different logits; analyse more images, or all samples')
    return rows, fits


def _examples(subject: Subject, fits: Dict[int, LogitFit]) -> List[tuple]:
    """Choose the first class with a fit of each group."""
    first: Dict[str, int] = {}
    for label in fits:
        first.setdefault(subject.group_of(label, 'all'), label)
    return sorted(first.items(), key=lambda item: ORDER.index(item[0]))


def _summary(rows: List[Row]) -> List[Row]:
    """Average the classes of one run, a line per group."""
    summary = []
    for group in dict.fromkeys(['all', *_groups(rows)]):
        mine = [r for r in rows if group in ('all', r['group'])]
        fitted = [r for r in mine if r['nearer']]
        summary.append(dict(
            run=rows[0]['run'], group=group, classes=len(mine),
            fitted=len(fitted),
            nearer_gumbel=_mean([r['nearer'] == 'gumbel' for r in fitted]),
            **{name: _mean([r[name] for r in fitted]) for name in
               ('ks_logistic', 'ks_gumbel', 'skewness', 'mean')}))
    return summary


def _groups(rows: List[Row]) -> List[str]:
    """Return the groups of some classes from most to least images."""
    return sorted({r['group'] for r in rows}, key=ORDER.index)


def _mean(values: list) -> float:
    return float(np.mean(values)) if values else float('nan')


def _draw(rows: List[Row], kept: Dict[str, tuple], path: str) -> None:
    """Draw examples of every group, and the distances of all classes."""
    columns = 1 + max(len(examples) for examples, *_ in kept.values())
    with drawing(path, len(kept), columns, 2.9, 2.5) as (_, axes):
        for line, (run, (examples, store, fits, names)) in zip(
                axes, kept.items(), strict=True):
            for axis, (group, label) in zip(line, examples, strict=False):
                _draw_class(axis, store.of(label), fits[label])
                axis.set(title=f'{run}: {names[label]} ({group})',
                         xlabel='logit', ylabel='density')
            for axis in line[len(examples):-1]:
                axis.set_axis_off()
            _draw_distances(line[-1], grouped(rows, 'run')[run, ])
            line[-1].set(title=f'{run}: all classes', xlabel='KS to logistic',
                         ylabel='KS to Gumbel')


def _draw_class(axis: object, values: np.ndarray, fit: LogitFit) -> None:
    from scipy import stats
    axis.hist(values, bins=HISTOGRAM_BINS, density=True, color='#c9c9c9',
              edgecolor='#8f8f8f', linewidth=0.4)
    x = np.linspace(values.min(), values.max(), 200)
    for number, (name, law, place, distance) in enumerate(
            (('logistic', stats.logistic, fit.logistic, fit.ks_logistic),
             ('Gumbel', stats.gumbel_r, fit.gumbel, fit.ks_gumbel))):
        axis.plot(x, law.pdf(x, *place), label=f'{name}, KS {distance:.3f}',
                  **dict(line_style(number), marker=''))
    axis.legend(loc='upper right', handlelength=1.5, borderpad=0.2)
    axis.set_ylim(0, 1.45 * axis.get_ylim()[1])  # room for the legend


def _draw_distances(axis: object, rows: List[Row]) -> None:
    for number, group in enumerate(_groups(rows)):
        mine = [r for r in rows if r['group'] == group and r['nearer']]
        if mine:
            axis.plot([r['ks_logistic'] for r in mine],
                      [r['ks_gumbel'] for r in mine],
                      label=f'{group} ({len(mine)})',
                      **dict(line_style(number), linestyle=''))
    top = 1.1 * max(*axis.get_xlim(), *axis.get_ylim())
    axis.plot([0, top], [0, top], color='black', linewidth=0.8)
    axis.set(xlim=(0, top), ylim=(0, top))
    axis.legend(loc='best', handletextpad=0.2)
