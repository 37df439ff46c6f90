"""Grad-CAM beside the last gate's signal (Fig. 7)."""
from typing import Dict, List, Optional, Sequence

from .explanation import Explanation, choose_images, choose_layer, explain
from .loading import Settings, Source, Subject, load_subjects, progress
from .plot_style import drawing, line_style
from .runs import Row, View

TEXT = (
    'Where the evidence for the predicted class is (Grad-CAM: the lighter '
    'the more, dashed at half of the greatest; of a detector with the box) '
    'and how the last gate weighs its channels for that image. A title names '
    'the predicted class with its frequency group and, if it is wrong, the '
    'truth; of a detector the best detection of a class of the group that '
    'the image was chosen for, by HiResCAM, which keeps to its place. Images '
    'are the first ones of every group, not selected ones.')


def analyze(sources: Sequence[Source], settings: Settings, num_images: int = 6,
            layer: Optional[str] = None, classifier: Optional[str] = None
            ) -> View:
    """Explain the same images by some checkpoints: rows per run and image."""
    view = View('Grad-CAM beside the last gate', TEXT)
    subjects = list(load_subjects(sources, settings, view.notes))
    layers = {s.name: choose_layer(s, layer) for s in subjects}
    view.settings = dict(layers=layers)
    found: Dict[str, List[Explanation]] = {}
    for subject in subjects:
        run = subject.name
        chosen = choose_images(subject, num_images)
        images = progress(chosen.items(), f'gradcam {run}', len(chosen))
        found[run] = [explain(subject, index, group, layers[run], classifier)
                      for index, group in images]
        if not found[run][0].gate:
            view.notes.append(f'{run} has no attention gate to show')
        rows = [_row(subject, item) for item in found[run]]
        view.rows += rows
        view.metrics[run] = dict(layer=layers[run], images=rows)
    view.summary = view.rows
    view.pictures = {'gradcam.png': lambda path: _draw(subjects, found, path)}
    return view


def _row(subject: Subject, item: Explanation) -> Row:
    names = subject.classes
    return dict(
        run=subject.name, image=item.index,
        truth=' '.join(names[c] for c in item.truth),
        predicted='' if item.label is None else names[item.label],
        group=subject.group_of(item.label), score=item.score, gate=item.gate,
        **{name: getattr(item.stats, name, float('nan'))
           for name in ('entropy', 'mean', 'variance')})


def _draw(subjects: Sequence[Subject], found: Dict[str, List[Explanation]],
          path: str) -> None:
    """Draw one row per image: heat and signal of every run."""
    height = max(len(items) for items in found.values())
    with drawing(path, height, 2 * len(subjects), 2.3, 2.0,
                 photos=True) as (_, axes):
        for number, subject in enumerate(subjects):
            for line, item in zip(axes, found[subject.name], strict=False):
                left, right = line[2 * number:2 * number + 2]
                _draw_heat(left, item, subject, item is found[subject.name][0])
                _draw_signal(right, item, number)
                if item is found[subject.name][-1] and item.signal.ndim < 2:
                    right.set_xlabel('channel')


def _draw_heat(axis: object, item: Explanation, subject: Subject,
               first: bool) -> None:
    from matplotlib.patches import Rectangle
    axis.imshow(item.image)
    axis.imshow(item.heat, cmap='inferno', vmin=0, vmax=1,
                alpha=0.6 * item.heat, interpolation='bilinear')
    if item.heat.max() > item.heat.min():
        axis.contour(item.heat, levels=[0.5], colors='white',
                     linewidths=1.2, linestyles='--')
    if item.box is not None:
        x1, y1, x2, y2 = item.box
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False,
                                 edgecolor='white', linewidth=1))
    height, width = item.heat.shape
    axis.set_xlim(-0.5, width - 0.5)  # a box may reach over the border
    axis.set_ylim(height - 0.5, -0.5)
    row = _row(subject, item)
    title = 'nothing found'
    if item.label is not None:
        title = f'{row["predicted"]} ({row["group"]}) {item.score:.2f}'
        if item.label not in item.truth:
            title += f'\nwrong: {row["truth"] or "no object"}'
    if first:
        title = f'{subject.name}\n{title}'
    axis.set_title(title, fontsize=8)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)


def _draw_signal(axis: object, item: Explanation, number: int) -> None:
    if item.stats is None:
        axis.set_axis_off()
        return
    axis.set_title(f'last gate: entropy {item.stats.entropy:.2f}', fontsize=8)
    if item.signal.ndim == 2:
        axis.imshow(item.signal, vmin=0, vmax=1)
        axis.grid(False)
        return
    style = dict(line_style(number), linestyle='', markersize=2)
    axis.plot(item.signal, **style)
    axis.set_ylim(-0.03, 1.03)
    axis.set_ylabel('gate value', fontsize=8)
