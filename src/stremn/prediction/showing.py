"""Draw predicted frames beside observed and true ones."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import UInt8

from stremn.media.codecs import LARGEST_SIDE

_TILE = 128
"""Shorter side of a picture in the video, at least, in pixels."""
_TILE_SMALL = 64
"""Shorter side of a picture in the strip, at least, in pixels; at most twice that."""
_BAR = 4
"""Pixels between two pictures side by side."""
_GRAY = 128
"""Of the lines between pictures."""
_DARK = 40
"""Of a place where there is no picture to show."""

Picture = UInt8[np.ndarray, "height width 3"]
Shown = UInt8[np.ndarray, "shown_height shown_width 3"]
"""A picture of another size than the one it is made of."""


def rgb(picture: UInt8[np.ndarray, "height width c"]) -> Picture:
    """Return a picture of 1 or 3 channels with 3."""
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture


def draw_pairs(
    before: list[Picture], truth: list[Picture], predicted: list[Picture]
) -> Iterator[Shown]:
    """Yield the pictures of the side-by-side video: left the video, right what was predicted.

    Both sides begin with the observed frames; where truth ends, the left side is dark.
    """
    dark = np.full_like(predicted[0], _DARK)
    left = before + truth + [dark] * (len(predicted) - len(truth))
    for one, other in zip(left, before + predicted, strict=True):
        first = _large(one)
        bar = np.full((first.shape[0], _BAR, 3), _GRAY, np.uint8)
        yield np.concatenate([first, bar, _large(other)], axis=1)


def draw_strip(before: list[Picture], truth: list[Picture], predicted: list[Picture]) -> Shown:
    """Draw rows of pictures: observed frames, true frames where there are any, predicted frames."""
    rows = [row for row in (before, truth, predicted) if row]
    columns = max(map(len, rows))
    dark = np.full_like(predicted[0], _DARK)
    drawn: list[np.ndarray] = []
    for row in rows:
        tiles = [_tile(picture) for picture in row + [dark] * (columns - len(row))]
        line = np.concatenate(tiles, axis=1)
        drawn += [line, np.full((_BAR, line.shape[1], 3), _GRAY, np.uint8)]
    return np.concatenate(drawn[:-1])


def _tile(picture: Picture) -> Shown:
    return np.pad(_small(picture), ((0, 0), (0, 2), (0, 0)), constant_values=_GRAY)


def _small(picture: Picture) -> Shown:
    side = min(picture.shape[:2])
    if side <= 2 * _TILE_SMALL:
        factor = max(1, -(-_TILE_SMALL // side))
        return picture.repeat(factor, axis=0).repeat(factor, axis=1)
    scale = 2 * _TILE_SMALL / side
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _large(picture: Picture) -> Shown:
    """Enlarge a small picture, as far as two of them side by side fit into a video."""
    height, width = picture.shape[:2]
    most = min(LARGEST_SIDE // height, (LARGEST_SIDE - _BAR) // 2 // width)
    if not most:
        scale = min(LARGEST_SIDE / height, (LARGEST_SIDE - _BAR) / 2 / width)
        size = (max(1, int(width * scale)), max(1, int(height * scale)))
        return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    factor = max(1, min(most, -(-_TILE // min(height, width))))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)
