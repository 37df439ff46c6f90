"""One style for all pictures: readable in grey, drawn without a display."""
from contextlib import contextmanager
from typing import Dict, Iterator, Tuple

import numpy as np

from apa_mm.utils.files import replacing

#: From dark to light, with as many dashes and markers: a print in grey, or a
#: reader who does not tell colours apart, loses nothing.
LINE_STYLES = (
    dict(color='#123a5e', linestyle='-', marker='o'),
    dict(color='#d1701c', linestyle='--', marker='s'),
    dict(color='#4f8f5b', linestyle='-.', marker='^'),
    dict(color='#8c6bb1', linestyle=':', marker='D'),
    dict(color='#5f5f5f', linestyle='-', marker='v'),
    dict(color='#c79a00', linestyle='--', marker='x'),
)
BAR_STYLES = tuple(
    dict(facecolor=style['color'], edgecolor='black', hatch=hatch)
    for style, hatch in zip(LINE_STYLES, ('', '//', '..', 'xx', '\\\\', '++'),
                            strict=True))
SETTINGS = {
    'figure.dpi': 110, 'savefig.dpi': 110, 'font.size': 9,
    'axes.titlesize': 9, 'axes.titlelocation': 'left', 'axes.labelsize': 9,
    'legend.fontsize': 8, 'axes.grid': True, 'grid.alpha': 0.3,
    'axes.spines.top': False, 'axes.spines.right': False,
    'lines.linewidth': 1.4, 'lines.markersize': 4, 'image.cmap': 'gray',
    'image.interpolation': 'nearest'
}


def line_style(number: int) -> Dict[str, str]:
    """Return colour, dashes and marker of line ``number``, from 0."""
    return dict(LINE_STYLES[number % len(LINE_STYLES)])


@contextmanager
def drawing(path: str, rows: int = 1, columns: int = 1, width: float = 3.2,
            height: float = 2.6, photos: bool = False,
            **subplots: object) -> Iterator[Tuple[object, np.ndarray]]:
    """Draw into a grid of equal cells; at the end the PNG is written.

    Width and height are those of a cell, in inches. Without ``photos`` the
    file has a palette, which makes it three times smaller. ``subplots`` are
    arguments of matplotlib's ``Figure.subplots``.
    """
    import matplotlib
    # Without pyplot no window system is asked for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    with matplotlib.rc_context(SETTINGS), replacing(path) as partial:
        figure = Figure(figsize=(columns * width, rows * height),
                        layout='constrained')
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(rows, columns, squeeze=False,
                                      **subplots)
        figure.savefig(partial, format='png')
        if not photos:
            from PIL import Image
            with Image.open(partial) as picture:
                small = picture.convert('RGB').quantize(
                    256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
            small.save(partial, format='png', optimize=True)


def legend_above(figure: object, axes: np.ndarray, columns: int) -> None:
    """Put the legend of the first cell above the grid."""
    figure.legend(*axes[0][0].get_legend_handles_labels(),
                  loc='outside upper center', ncols=columns)
