"""NC1 of the features before the classifier (Table 7)."""
from typing import Any, Dict, List, Optional, Sequence

from apa_mm.analysis.classifier import record_classifier
from apa_mm.analysis.collapse import Collapse, CollapseSums
from apa_mm.analysis.loading import (Settings, Source, Subject, load_subject,
                                     run_images)
from apa_mm.analysis.runs import View
from apa_mm.analysis.plot_style import BAR_STYLES, drawing, label_axis

__all__ = ['analyze']

TEXT = (
    'NC1 = trace(Sigma_W pinv(Sigma_B)) / K of the features that the last '
    'classifier sees (Eq. 10 to 12): scatter within classes in units of the '
    'distances between class means. Smaller means tighter classes. Of a '
    'detector: RoIs of the test run that overlap an object by at least 0.5.')


def analyze(sources: Sequence[Source],
            settings: Settings,
            classifier: Optional[str] = None) -> View:
    """Compute NC1 of some checkpoints.

    Args:
        sources (Sequence[Source]): Checkpoints to compare.
        settings (Settings): Split, images and groups.
        classifier (str, optional): Name of the last layer.

    Returns:
        View: One row per run.

    Raises:
        AnalysisError: If features are NaN or fewer than 2 classes are there.
    """
    rows: List[Dict[str, Any]] = []
    notes: List[str] = []
    metrics: Dict[str, Any] = {}
    for source in sources:
        subject = load_subject(source, settings)
        found = _measure(subject, classifier)
        metrics[source.name] = found._asdict()
        rows.append(dict(
            run=source.name, nc1=found.nc1, samples=found.num_samples,
            classes=found.num_classes,
            classes_without_samples=len(found.empty_classes),
            classes_with_one_sample=len(found.single_classes)))
        notes += _notes(subject, found)
    return View(
        title='Neural collapse (NC1) of the features',
        text=TEXT,
        metrics=metrics,
        rows=rows,
        summary=rows,
        pictures={'collapse.png': lambda path: draw(rows, path)},
        notes=notes)


def _measure(subject: Subject, classifier: Optional[str]) -> Collapse:
    sums = CollapseSums(len(subject.classes))
    with record_classifier(subject, classifier) as record:
        for batch in run_images(subject, 'collapse'):
            rows = record.take(batch)
            on_object = rows.labels >= 0
            sums.update(rows.features[on_object], rows.labels[on_object])
    return sums.result()


def _notes(subject: Subject, found: Collapse) -> List[str]:
    notes = []
    for labels, what in ((found.empty_classes,
                          'no sample and no part in NC1'),
                         (found.single_classes,
                          'one sample: a mean, but no scatter')):
        if labels:
            names = ', '.join(subject.classes[c] for c in labels[:5])
            notes.append(
                f'{subject.name}: {len(labels)} of {len(subject.classes)} '
                f'classes have {what}: {names}'
                f'{", ..." if len(labels) > 5 else ""}')
    return notes


def draw(rows: Sequence[Dict[str, Any]], path: str) -> None:
    """Draw one bar per run.

    Args:
        rows (Sequence[dict]): As in the view.
        path (str): PNG to write.
    """
    with drawing(path, width=5, height=1 + 0.45 * len(rows)) as (_, axes):
        axis = axes[0][0]
        for place, row in enumerate(rows):
            axis.barh(place, row['nc1'], height=0.6,
                      **BAR_STYLES[place % len(BAR_STYLES)])
            axis.text(row['nc1'], place, f' {row["nc1"]:.4g}', va='center')
        axis.set_yticks(range(len(rows)), [r['run'] for r in rows])
        axis.invert_yaxis()
        axis.set_xlim(0, 1.18 * max(r['nc1'] for r in rows))
        label_axis(axis, x='NC1, no unit (smaller: classes are tighter)')
