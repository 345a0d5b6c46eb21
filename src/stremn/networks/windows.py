"""Search windows: where an object is searched for, and where its mask is memorized.

Not in the paper. Where the filter of Sec 4.1.1 would remove an object, reading and decoding can be
skipped. Far from all objects the memorized features of a frame are the same for each. A window is
the rectangle around the object's place, enlarged on every side by the filter's reach and by the
context that the network needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Int32
from torch import Tensor

from stremn.networks.backbones import STRIDE

CONTEXT = 4
"""Positions beyond the reach that are decoded too: the decoder needs context, and small objects are
lost with too little (two positions were too few)."""

STEP = 2
"""Windows begin and end at multiples of this number of positions: oneDNN prepares a convolution for
every new size, which costs as much as running it."""

MEMORY_CONTEXT = 6
"""Positions around an object that are memorized for it alone: the receptive field of a mask in the
memory encoder. With four, small vehicles on a highway lost a point of J&F; eight gain nothing over
six."""

EDGE = 1
"""Outermost positions of a window whose features are not kept: its border is not the frame's."""

WORTH = 0.6
"""Windows are used where their estimated work is below this share: small ones are slower per
position."""


@dataclass(frozen=True)
class Window:
    """Rows and columns of positions at stride 16; `bottom` and `right` are left out."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def positions(self) -> int:
        """Number of positions."""
        return (self.bottom - self.top) * (self.right - self.left)

    def inside(self, grid: tuple[int, int]) -> Window:
        """Return the window without its outermost positions, but for those at the grid's border."""
        return Window(
            self.top + EDGE * (self.top > 0),
            self.bottom - EDGE * (self.bottom < grid[0]),
            self.left + EDGE * (self.left > 0),
            self.right - EDGE * (self.right < grid[1]),
        )

    def seen_from(self, other: Window) -> Window:
        """Return the same positions relative to the first one of `other`."""
        return Window(
            self.top - other.top,
            self.bottom - other.top,
            self.left - other.left,
            self.right - other.left,
        )

    def cut(self, x: Tensor, stride: int) -> Tensor:
        """Return the window's part (a view) of a map "b c height width" at `stride`."""
        rows, columns = self.at(stride)
        return x[:, :, rows, columns]

    def at(self, stride: int) -> tuple[slice, slice]:
        """Return rows and columns of a map at `stride`."""
        times = STRIDE // stride
        return (
            slice(self.top * times, self.bottom * times),
            slice(self.left * times, self.right * times),
        )


def whole(grid: tuple[int, int]) -> Window:
    """Return the window that is the whole grid of (rows, columns)."""
    return Window(0, grid[0], 0, grid[1])


def window_round(
    previous: Bool[np.ndarray, "height width"],
    reach: float,
    grid: tuple[int, int],
    context: int,
) -> Window:
    """Return the search window of an object.

    Args:
        previous: its mask in the previous frame, at the working resolution.
        reach: how far it may move, in units of the square root of its area.
        grid: rows and columns of positions.
        context: positions beyond the reach.

    Returns:
        The window; the whole grid for an object that was absent, which may appear anywhere.
    """
    left, top, width, height = cv2.boundingRect(previous.view(np.uint8))
    if width == 0:
        return whole(grid)
    margin = reach * math.sqrt(cv2.countNonZero(previous.view(np.uint8))) + context * STRIDE

    def bounds(start: int, length: int, end: int) -> tuple[int, int]:
        unit = STEP * STRIDE
        first = math.floor((start - margin) / unit) * STEP
        last = math.ceil((start + length + margin) / unit) * STEP
        return max(0, first), min(end, last)

    return Window(*bounds(top, height, grid[0]), *bounds(left, width, grid[1]))


def windows_round(
    layers: Int32[np.ndarray, "height width"],
    objects: int,
    reach: float,
    grid: tuple[int, int],
    context: int,
) -> list[Window]:
    """Return the search windows of the objects 1..`objects` in `layers` (see `window_round`)."""
    return [window_round(layers == layer, reach, grid, context) for layer in range(1, objects + 1)]


def windows_that_pay(
    layers: Int32[np.ndarray, "height width"], objects: int, grid: tuple[int, int]
) -> list[Window] | None:
    """Return the windows to memorize the objects 1..`objects` in.

    None where one whole frame and all windows are not clearly less work than a whole frame for
    each object: then each object takes the whole frame.
    """
    windows = windows_round(layers, objects, 0.0, grid, MEMORY_CONTEXT)
    frame = whole(grid).positions
    work = frame + sum(window.positions for window in windows)
    return windows if work < WORTH * objects * frame else None
