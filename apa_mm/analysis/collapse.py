r"""Neural collapse of the features before the classifier (Table 7).

With features h of dimension D, class means :math:`\mu_c` and the mean
:math:`\mu` of all features,

.. math::
    \Sigma_W = \frac1N \sum_c \sum_{i \in c} (h_i - \mu_c)(h_i - \mu_c)^T,
    \quad
    \Sigma_B = \frac1K \sum_c (\mu_c - \mu)(\mu_c - \mu)^T, \quad
    NC_1 = \frac1K \mathrm{tr}(\Sigma_W \Sigma_B^+)

(Eq. 10 to 12). The smaller, the tighter the classes are around their means.

Legend: N samples, K classes that have samples, C classes in all, D features.
"""
from typing import List, NamedTuple, Optional, Sequence

import torch
from torch import Tensor

from apa_mm.utils.tables import show

from .classifier import record_classifier
from .errors import AnalysisError, check_finite
from .loading import Settings, Source, Subject, load_subjects, run_images
from .plot_style import BAR_STYLES, drawing
from .runs import Row, View

TEXT = (
    'NC1 = trace(Sigma_W pinv(Sigma_B)) / K of the features that the last '
    'classifier sees (Eq. 10 to 12): scatter within classes in units of the '
    'distances between class means. Smaller means tighter classes. Of a '
    'detector: RoIs of the test run that overlap an object by at least 0.5.')


class Collapse(NamedTuple):
    """NC1 and what it was computed from."""

    nc1: float
    num_samples: int  # N
    num_classes: int  # K
    empty_classes: List[int]  # without a sample: not in K
    single_classes: List[int]  # with one sample: in K, but without scatter


class CollapseSums:
    """Class means and scatter of features that come in batches.

    Every batch is centred at its own class means and merged by the update of
    Chan et al. (1979), so that nothing cancels. Memory: C x D and D x D
    float64 numbers, 50 MB for 1,000 classes and 2,048 features.

    Example:
        >>> sums = CollapseSums(num_classes=2)
        >>> sums.update(torch.tensor([[0.], [2.], [4.], [6.]]),
        ...             torch.tensor([0, 0, 1, 1]))
        >>> round(sums.result().nc1, 12)  # (1 / 4) / 2
        0.125
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = torch.zeros(num_classes, dtype=torch.float64)
        self.means = torch.zeros(num_classes, 0, dtype=torch.float64)
        self.scatter = torch.zeros(0, 0, dtype=torch.float64)

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add finite features (n, D) with classes in [0, C), int64, (n,)."""
        x = features.detach().cpu().double()
        labels = labels.cpu()
        num_classes = len(self.counts)
        if x.dim() != 2 or labels.shape != x.shape[:1]:
            raise AnalysisError(
                'features must be (n, D) and labels (n,), but got shapes '
                f'{tuple(x.shape)} and {tuple(labels.shape)}')
        if not len(x):
            return
        if labels.min() < 0 or labels.max() >= num_classes:
            raise AnalysisError(
                f'labels must be in [0, {num_classes}), but span '
                f'[{labels.min()}, {labels.max()}]; give num_classes of them')
        check_finite(x, 'features')
        if not self.scatter.numel():
            self.means = x.new_zeros(num_classes, x.shape[1])
            self.scatter = x.new_zeros(x.shape[1], x.shape[1])
        seen, labels, added = labels.unique(return_inverse=True,
                                            return_counts=True)
        added = added.double()  # (k,) for the k classes of this batch
        means = x.new_zeros(len(seen), x.shape[1]).index_add_(0, labels, x)
        means /= added[:, None]
        centred = x - means[labels]
        shift = means - self.means[seen]
        before = self.counts[seen]
        share = added / (before + added)
        self.scatter += centred.T @ centred
        self.scatter += (shift * (before * share)[:, None]).T @ shift
        self.means[seen] += shift * share[:, None]
        self.counts[seen] += added

    def result(self) -> Collapse:
        """Return NC1 of everything so far.

        It takes two classes with samples and different means, and two samples
        of one of them.
        """
        there = self.counts > 0
        num_classes = int(there.sum())
        if num_classes < 2:
            raise AnalysisError(
                'the classes with samples must be at least 2, but got '
                f'{num_classes}; analyse a split with more classes')
        if self.counts.max() < 2:
            raise AnalysisError(
                'neural collapse needs a class with 2 samples, but each of '
                f'the {num_classes} classes has one; analyse more images')
        num_samples = self.counts.sum()
        means = self.means[there]
        mean = (self.counts[there] @ means) / num_samples
        # The singular values of the means are the roots of those of Sigma_B.
        _, sizes, axes = torch.linalg.svd(
            (means - mean) / num_classes**0.5, full_matrices=False)
        cut = max(means.shape) * torch.finfo(torch.float64).eps
        # The means themselves are exact to eps of their own size only.
        kept = sizes > cut * max(float(sizes.max()), float(means.abs().max()))
        if not kept.any():
            raise AnalysisError(
                'the class means are all equal, so that NC1 divides by zero; '
                'train the model first')
        along = torch.einsum('jd,de,je->j', axes[kept], self.scatter,
                             axes[kept])
        nc1 = (along / num_samples / sizes[kept]**2).sum() / num_classes
        return Collapse(
            float(nc1), int(num_samples), num_classes,
            *(torch.nonzero(self.counts == n).flatten().tolist()
              for n in (0, 1)))


def analyze(sources: Sequence[Source], settings: Settings,
            classifier: Optional[str] = None) -> View:
    """Compute NC1 of some checkpoints: one row per run."""
    view = View('Neural collapse (NC1) of the features', TEXT)
    # Not the notes on groups: NC1 has none.
    for subject in load_subjects(sources, settings, []):
        sums = CollapseSums(len(subject.classes))
        with record_classifier(subject, classifier) as record:
            for batch in run_images(subject, 'collapse'):
                features, _, labels = record.take(batch)
                on_object = labels >= 0
                sums.update(features[on_object], labels[on_object])
        found = sums.result()
        view.metrics[subject.name] = found._asdict()
        view.rows.append(dict(
            run=subject.name, nc1=found.nc1, samples=found.num_samples,
            classes=found.num_classes,
            classes_without_samples=len(found.empty_classes),
            classes_with_one_sample=len(found.single_classes)))
        view.notes += _notes(subject, found)
    view.summary = view.rows
    view.pictures = {'collapse.png': lambda path: _draw(view.rows, path)}
    return view


def _notes(subject: Subject, found: Collapse) -> List[str]:
    notes = []
    for labels, what in (
        (found.empty_classes, 'no sample and no part in NC1'),
        (found.single_classes, 'one sample: a mean, but no scatter')):
        if labels:
            notes.append(
                f'{subject.name}: {len(labels)} of {len(subject.classes)} '
                f'classes have {what}: '
                + show((subject.classes[c] for c in labels), 5))
    return notes


def _draw(rows: Sequence[Row], path: str) -> None:
    with drawing(path, width=5, height=1 + 0.45 * len(rows)) as (_, axes):
        axis = axes[0][0]
        for place, row in enumerate(rows):
            axis.barh(place, row['nc1'], height=0.6,
                      **BAR_STYLES[place % len(BAR_STYLES)])
            axis.text(row['nc1'], place, f' {row["nc1"]:.4g}', va='center')
        axis.set_yticks(range(len(rows)), [r['run'] for r in rows])
        axis.invert_yaxis()
        axis.set(xlim=(0, 1.18 * max(r['nc1'] for r in rows)),
                 xlabel='NC1, no unit (smaller: classes are tighter)')
