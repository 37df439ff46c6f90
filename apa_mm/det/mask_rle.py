"""Run-length codes of predicted masks, only where evaluation reads them."""
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np

__all__ = ['encode_masks', 'mask_areas', 'mask_size']


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
    from hotcoco.mask import encode
    size = [int(n) for n in masks.shape[1:]]
    pixels = size[0] * size[1]
    codes = []
    for i in range(len(masks)):
        if wanted is None or wanted[i]:
            codes.append(encode(_to_numpy(masks[i])))
        else:
            area = 0 if areas is None else int(areas[i])
            counts = [0, area, pixels - area] if area else [pixels]
            codes.append(dict(size=size, counts=counts))
    return codes


def mask_areas(masks: Any) -> np.ndarray:
    """Return the number of set pixels of each mask or code, (N, ) int64."""
    if _is_encoded(masks):
        from hotcoco.mask import area
        return np.array([area(code) for code in masks], dtype=np.int64)
    areas = [np.count_nonzero(_to_numpy(mask)) for mask in masks]
    return np.array(areas, dtype=np.int64)


def mask_size(masks: Any) -> Optional[Tuple[int, int]]:
    """Return (H, W) of the masks, None if there are none."""
    if not len(masks):
        return None
    height, width = masks[0]['size'] if _is_encoded(
        masks) else masks.shape[1:]
    return int(height), int(width)


def _is_encoded(masks: Any) -> bool:
    return isinstance(masks, Sequence)


def _to_numpy(mask: Any) -> np.ndarray:
    """Return one (H, W) mask as bool or uint8 array in host memory."""
    if hasattr(mask, 'detach'):
        mask = mask.detach().cpu().numpy()
    return mask if mask.dtype == np.bool_ else mask.astype(
        np.uint8, copy=False)
