"""Colors of ids: the standard palette of masks, and vivid colors for drawing."""

import colorsys
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image

_GREY_IDS = 20


@lru_cache(maxsize=1)
def _table() -> UInt8[np.ndarray, "256 3"]:
    ids = np.arange(256)
    table = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):  # bits 0, 3, 6 of the id are red's highest bits, and so on
            source = 3 * bit + channel
            if source < 8:
                table[:, channel] |= ((ids >> source & 1) << (7 - bit)).astype(np.uint8)
    table.setflags(write=False)
    return table


def palette() -> UInt8[np.ndarray, "256 3"]:
    """Return the field's standard mask palette (PASCAL VOC, DAVIS): the bits of an id,
    interleaved."""
    return _table().copy()


@lru_cache(maxsize=1)
def packed_palette() -> dict[int, int]:
    """Map packed color (r * 65536 + g * 256 + b) -> id."""
    table = _table().astype(int)
    return {int(r << 16 | g << 8 | b): i for i, (r, g, b) in enumerate(table)}


@lru_cache(maxsize=1)
def grey_palette() -> dict[int, int]:
    """Map gray value -> id for the first ids of the palette, as PIL and OpenCV turn color to
    grey."""
    first = _table()[1 : _GREY_IDS + 1][None]
    grey = np.asarray(Image.fromarray(np.ascontiguousarray(first)).convert("L"))[0]
    return {int(value): i + 1 for i, value in reversed(list(enumerate(grey)))}


_VIVID = (
    (66, 133, 244), (244, 81, 66), (52, 199, 89), (255, 179, 0), (175, 82, 222), (0, 199, 190),
    (255, 105, 170), (162, 200, 40), (255, 128, 40), (90, 90, 230), (120, 210, 250), (190, 130, 80),
)  # fmt: skip


@lru_cache(maxsize=1)
def vivid_table() -> UInt8[np.ndarray, "256 3"]:
    """Return colors that stand out over a picture and differ clearly; index 0 is not drawn."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[1 : len(_VIVID) + 1] = _VIVID
    for item in range(len(_VIVID) + 1, 256):
        hue = item * 0.6180339887 % 1  # golden ratio: neighbors in id are far apart in hue
        level = 0.75 + 0.25 * (item % 2)
        table[item] = [round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, level)]
    return table
