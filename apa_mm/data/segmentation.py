"""Segmentations of an annotation file: checked, and kept small."""
from array import array
from typing import Annotated, Any, List, Optional, Tuple, Union

import msgspec
from msgspec import Meta, Raw, Struct

from apa_mm.data.annotations import FAULTS

Count = Annotated[int, Meta(ge=0)]
Polygon = Annotated[List[float], Meta(min_length=6)]


class RunLengths(Struct):
    """A run-length code: (height, width) and runs, as numbers or as text."""

    size: Tuple[Count, Count]
    counts: Union[str, List[Count]]


_decoder = msgspec.json.Decoder(
    Union[RunLengths, Annotated[List[Polygon], Meta(min_length=1)]])


def is_usable(raw: Raw, size: Tuple[float, float]) -> bool:
    """Return whether a mask can be drawn in an image of (height, width)."""
    # One polygon of plain numbers, as most are, is told without reading them.
    if bytes(raw).translate(None, b'0123456789.-, ') == b'[[]]':
        commas = bytes(raw).count(b',')
        return commas >= 5 and commas % 2 == 1
    try:
        shape = _decoder.decode(raw)
    except FAULTS:
        return False
    if isinstance(shape, list):
        return not any(len(polygon) % 2 for polygon in shape)
    counts = shape.counts
    if isinstance(counts, str):
        counts = _runs(counts)
    return (counts is not None and shape.size == tuple(size)
            and min(counts, default=0) >= 0
            and sum(counts) == shape.size[0] * shape.size[1])


def _runs(text: str) -> Optional[List[int]]:
    """Return the runs of COCO's text form, None if the text breaks off.

    Each character from '0' on holds five bits, least first, and a sixth if
    more follow; the highest bit is the sign. From the fourth number on, a run
    is the difference to the last but one.
    """
    runs, value, shift = [], 0, 0
    for char in text:
        bits = ord(char) - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    return None if shift else runs


def pack(raw: Raw) -> Any:
    """Return a usable segmentation in a form that takes little memory."""
    shape = _decoder.decode(raw)
    if isinstance(shape, list):
        return [array('d', polygon) for polygon in shape]
    return shape


def unpack(shape: Any) -> Any:
    """Return a packed segmentation as evaluators read it."""
    if isinstance(shape, list):
        return [polygon.tolist() for polygon in shape]
    return dict(size=list(shape.size), counts=shape.counts)
