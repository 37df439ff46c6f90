"""Draw handwritten digits on noisy canvases.

Legend: H, W height and width of a canvas in pixels; h, w those of a digit's
patch; P points of a polygon. Colours are RGB in [0, 255] while drawing.
"""
from typing import List, Tuple

import cv2
import numpy as np
from numpy import ndarray

__all__ = [
    'COLOURS', 'MASK_THRESHOLD', 'background', 'mask_polygons', 'place',
    'polygon_area', 'polygon_box', 'render', 'stamp'
]

#: Hue of every colour class in degrees; 120 degrees apart, so that colours
#: stay distinct under :data:`HUE_JITTER`.
COLOURS = {'red': 0.0, 'green': 120.0, 'blue': 240.0}
#: Largest change of a digit's hue, in degrees.
HUE_JITTER = 18.0
#: Opacity from which a pixel belongs to the digit's mask.
MASK_THRESHOLD = 0.4
#: Masks are enlarged by this before their outline is taken: an outline runs
#: through pixel centres, so it loses half a pixel of the enlarged grid only.
OUTLINE_SCALE = 4
#: Parts of an outline with fewer pixels are dropped as specks.
MIN_PART_AREA = 4.0
#: Places tried for a digit; the last ones ask for the smallest size.
MAX_TRIES = 200


def background(rng: np.random.Generator, size: int) -> ndarray:
    """Make a dim, noisy canvas.

    Args:
        rng (np.random.Generator): Source of randomness.
        size (int): Height and width in pixels.

    Returns:
        ndarray: float32 (H, W, 3) in [0, 255].

    Example:
        >>> import numpy as np
        >>> background(np.random.default_rng(0), 32).shape
        (32, 32, 3)
    """
    blobs = rng.uniform(30, 130, size=(4, 4, 3)).astype(np.float32)
    grey = blobs.mean(axis=2, keepdims=True)
    canvas = cv2.resize(
        0.7 * grey + 0.3 * blobs, (size, size), interpolation=cv2.INTER_CUBIC)
    noise = rng.normal(0, rng.uniform(4, 14), size=canvas.shape)
    return np.clip(canvas + noise, 0, 255).astype(np.float32)


def render(digit: ndarray, size: int) -> ndarray:
    """Enlarge one handwritten digit to a patch of opacities.

    Args:
        digit (ndarray): (8, 8) with values in [0, 16].
        size (int): Length of the patch's longer side in pixels.

    Returns:
        ndarray: float32 (h, w) in [0, 1], cropped to the digit's mask, with
        max(h, w) equal to ``size``.
    """
    padded = np.pad(digit.astype(np.float32) / 16, 1)
    rows, cols = np.nonzero(padded > MASK_THRESHOLD)
    extent = max(np.ptp(rows), np.ptp(cols)) + 1
    side = int(round(size * padded.shape[0] / extent))
    alpha = cv2.resize(padded, (side, side), interpolation=cv2.INTER_CUBIC)
    rows, cols = np.nonzero(alpha >= MASK_THRESHOLD)
    alpha = alpha[rows.min():rows.max() + 1, cols.min():cols.max() + 1]
    # Smoothing moved the outline by a pixel or two: correct the size.
    height, width = (max(1, round(length * size / max(alpha.shape)))
                     for length in alpha.shape)
    return np.clip(cv2.resize(alpha, (width, height)), 0, 1)


def place(rng: np.random.Generator, canvas_size: int,
          size_range: Tuple[int, int], digit: ndarray,
          taken: List[Tuple]) -> Tuple[ndarray, int, int]:
    """Choose size and place of a digit clear of the digits already there.

    Args:
        rng (np.random.Generator): Source of randomness.
        canvas_size (int): Height and width of the canvas in pixels.
        size_range (tuple[int]): Smallest and largest longer side in pixels.
        digit (ndarray): (8, 8) with values in [0, 16].
        taken (list[tuple]): Boxes (x1, y1, x2, y2) already on the canvas.

    Returns:
        tuple: The patch of opacities (h, w) and its left and top pixel.

    Raises:
        ValueError: If no free place was found.
    """
    smallest, largest = size_range
    for _ in range(MAX_TRIES):
        patch = render(digit, int(rng.integers(smallest, largest + 1)))
        height, width = patch.shape
        x = int(rng.integers(0, canvas_size - width + 1))
        y = int(rng.integers(0, canvas_size - height + 1))
        if not any(x < x2 and x1 < x + width and y < y2 and y1 < y + height
                   for x1, y1, x2, y2 in taken):
            return patch, x, y
        # A crowded canvas leaves room for smaller digits only.
        largest = max(smallest, largest - 1)
    raise ValueError(
        f'found no free place for digit number {len(taken) + 1} of at least '
        f'{smallest} pixels on a canvas of {canvas_size} pixels; raise '
        'image_size or lower min_digit and max_digit')


def stamp(rng: np.random.Generator, canvas: ndarray, patch: ndarray, x: int,
          y: int, hue: float) -> None:
    """Paint a digit on the canvas, in place.

    Args:
        rng (np.random.Generator): Source of randomness.
        canvas (ndarray): float32 (H, W, 3) in [0, 255], changed in place.
        patch (ndarray): (h, w) opacities in [0, 1].
        x (int): Left pixel of the patch.
        y (int): Top pixel of the patch.
        hue (float): Hue of the digit's colour class in degrees.
    """
    hue = (hue + rng.uniform(-HUE_JITTER, HUE_JITTER)) % 360
    hsv = np.float32([[[hue, rng.uniform(0.65, 1.0), rng.uniform(0.75, 1.0)]]])
    colour = 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0]
    height, width = patch.shape
    window = canvas[y:y + height, x:x + width]
    opacity = patch[..., None]  # (h, w, 1)
    window[:] = opacity * colour + (1 - opacity) * window


def mask_polygons(mask: ndarray, x: int = 0, y: int = 0) -> List[List[float]]:
    """Trace the outer outlines of a mask.

    Holes (the inside of a zero) are filled, as in LVIS itself, whose polygons
    cannot express them.

    Args:
        mask (ndarray): bool (h, w).
        x (int): Left pixel of the mask on the canvas. Defaults to 0.
        y (int): Top pixel of the mask on the canvas. Defaults to 0.

    Returns:
        list[list[float]]: One flat list x1, y1, x2, y2, ... per part, in
        pixels, where pixel i spans [i, i + 1).

    Example:
        >>> import numpy as np
        >>> mask = np.zeros((8, 8), bool)
        >>> mask[2:6, 1:7] = True
        >>> mask_polygons(mask)
        [[1.125, 2.125, 1.125, 5.875, 6.875, 5.875, 6.875, 2.125]]
    """
    scale = OUTLINE_SCALE
    enlarged = np.kron(mask.astype(np.uint8),
                       np.ones((scale, scale), np.uint8))
    outlines, _ = cv2.findContours(enlarged, cv2.RETR_EXTERNAL,
                                   cv2.CHAIN_APPROX_NONE)
    polygons = []
    for outline in outlines:
        if cv2.contourArea(outline) < MIN_PART_AREA * scale**2:
            continue
        outline = cv2.approxPolyDP(outline, epsilon=1.5, closed=True)
        points = (outline.reshape(-1, 2) + 0.5) / scale + (x, y)  # (P, 2)
        polygons.append([float(value) for value in points.reshape(-1)])
    return polygons


def polygon_box(polygons: List[List[float]]) -> List[float]:
    """Return the tight box around the parts of one object.

    Args:
        polygons (list[list[float]]): Parts as from :func:`mask_polygons`.

    Returns:
        list[float]: x, y, width, height in pixels.
    """
    points = np.concatenate([np.reshape(part, (-1, 2)) for part in polygons])
    low, high = points.min(axis=0), points.max(axis=0)
    return [float(value) for value in (*low, *(high - low))]


def polygon_area(polygons: List[List[float]]) -> float:
    """Return the area enclosed by the parts of one object.

    Args:
        polygons (list[list[float]]): Parts as from :func:`mask_polygons`.

    Returns:
        float: Area in square pixels.
    """
    return float(
        sum(
            cv2.contourArea(np.reshape(part, (-1, 1, 2)).astype(np.float32))
            for part in polygons))
