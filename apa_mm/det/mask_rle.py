"""Run-length codes of predicted masks, only where evaluation reads them."""
from typing import Any, List, Optional, Sequence, Tuple

import cv2
import numpy as np

from apa_mm.utils import HAS_HOTCOCO

if HAS_HOTCOCO:  # metrics ask for it when they are built
    import hotcoco


def encode_masks(masks: Any,
                 wanted: Optional[np.ndarray] = None,
                 areas: Optional[np.ndarray] = None) -> List[dict]:
    """Encode masks as COCO run-length codes.

    An unmatched detection is judged by its score and its area, never by its
    pixels. So a mask whose category the image does not have gets a stand-in:
    one run of the right area, or an empty mask where areas come from boxes.

    Args:
        masks (Tensor | np.ndarray | Sequence[dict]): Binary masks (N, H, W),
            bool or uint8, or N codes that are passed on as they are.
        wanted (np.ndarray, optional): Which masks are read, bool (N, ).
        areas (np.ndarray, optional): Pixels of the stand-ins, (N, ), or 0.
    """
    if _is_encoded(masks):
        return list(masks)
    size = [int(n) for n in masks.shape[1:]]
    pixels = size[0] * size[1]
    codes = []
    for i in range(len(masks)):
        if wanted is None or wanted[i]:
            codes.append(hotcoco.mask.encode(_to_numpy(masks[i])))
        else:
            area = 0 if areas is None else int(areas[i])
            counts = [0, area, pixels - area] if area else [pixels]
            codes.append(dict(size=size, counts=counts))
    return codes


def mask_areas(masks: Any) -> np.ndarray:
    """Return the number of set pixels of each mask or code, (N, ) int64."""
    if _is_encoded(masks):
        areas = [hotcoco.mask.area(code) for code in masks]
    else:
        areas = [np.count_nonzero(_to_numpy(mask)) for mask in masks]
    return np.array(areas, dtype=np.int64)


def mask_size(masks: Any) -> Optional[Tuple[int, int]]:
    """Return (H, W) of the masks, None if there are none."""
    if not len(masks):
        return None
    height, width = masks[0]['size'] if _is_encoded(masks) else masks.shape[1:]
    return int(height), int(width)


def boundary(code: dict, dilation_ratio: float) -> dict:
    """Return the code of a mask's pixels that are near its edge.

    These are the pixels around which a square of ``2 d + 1`` pixels reaches
    beyond the mask or the image; ``d`` is ``dilation_ratio`` of the image
    diagonal, at least 1 pixel.
    """
    mask = hotcoco.mask.decode(code)
    width = max(1, round(dilation_ratio * float(np.hypot(*mask.shape))))
    x, y, w, h = hotcoco.mask.to_bbox(code).astype(int)
    part = np.ascontiguousarray(mask[y:y + h, x:x + w])
    if part.size:
        square = np.ones((2 * width + 1, 2 * width + 1), dtype=np.uint8)
        mask[y:y + h, x:x + w] -= cv2.erode(
            part, square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return hotcoco.mask.encode(mask)


def boundary_ious(found: List[dict], objects: List[dict], lowest: float,
                  dilation_ratio: Optional[float]) -> np.ndarray:
    """Return the smaller of mask and boundary IoU of codes, (D, G).

    Pairs whose mask IoU is below ``lowest``, or all without a
    ``dilation_ratio``, keep their mask IoU. Source: Cheng et al., 2021.
    """
    ious = hotcoco.mask.iou(found, objects, [0] * len(objects))
    if dilation_ratio is not None and (near := ious >= lowest).any():
        pairs = np.ix_(near.any(1), near.any(0))
        found, objects = ([boundary(codes[i], dilation_ratio)
                           for i in np.flatnonzero(near.any(axis))]
                          for codes, axis in ((found, 1), (objects, 0)))
        ious[pairs] = np.minimum(ious[pairs], hotcoco.mask.iou(
            found, objects, [0] * len(objects)))
    return ious


def _is_encoded(masks: Any) -> bool:
    return isinstance(masks, Sequence)


def _to_numpy(mask: Any) -> np.ndarray:
    """Return one (H, W) mask as bool or uint8 array in host memory."""
    if hasattr(mask, 'detach'):
        mask = mask.detach().cpu().numpy()
    return mask if mask.dtype == bool else mask.astype(np.uint8, copy=False)
