"""Choose evenly spaced frames and reduce them, for pictures of many frames."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

TILE_HEIGHT = 220
"""Height in pixels of a frame in a picture of many."""


def small(picture: np.ndarray) -> np.ndarray:
    """Reduce a picture or label map to the height of a tile."""
    height, width = picture.shape[:2]
    if height <= TILE_HEIGHT:
        return picture
    how = cv2.INTER_AREA if picture.ndim == 3 else cv2.INTER_NEAREST
    size = (max(1, round(width * TILE_HEIGHT / height)), TILE_HEIGHT)
    return np.asarray(cv2.resize(picture, size, interpolation=how), dtype=picture.dtype)


def evenly(items: Sequence[int], count: int) -> list[int]:
    """Return up to `count` of the items, evenly spaced, the first and the last among them."""
    places = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[place] for place in places]
