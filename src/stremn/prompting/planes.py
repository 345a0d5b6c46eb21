"""Draw prompts as input planes of the network, and find the next click."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np
from jaxtyping import Bool, Float

from stremn.media.finding import Click
from stremn.moved import moved_names

PLANES = 5
"""Previous mask, clicks on the object, clicks off it, box, and what other objects cover."""

RADIUS = 5
"""Radius of a click's disc in pixels of the working resolution (as in RITM)."""

Plane = Bool[np.ndarray, "height width"]


@dataclass(frozen=True)
class MaskPrompt:
    """What is known of an object in one frame.

    Attributes:
        clicks: points on and off the object, in the order given.
        box: left, top, right, bottom in pixels, or None.
        previous: probability of the object so far, in [0, 1], or None.
        others: pixels that belong to other objects, or None.
        settled: whether the previous mask is known to be good, so that it stays as it is wherever
            a click's change does not touch the click.
    """

    clicks: Sequence[Click] = field(default_factory=tuple)
    box: tuple[float, float, float, float] | None = None
    previous: Float[np.ndarray, "height width"] | None = None
    others: Plane | None = None
    settled: bool = False


def prompt_planes(
    prompt: MaskPrompt, size: tuple[int, int]
) -> Float[np.ndarray, "planes height width"]:
    """Draw a prompt for a frame of (height, width): see `PLANES`."""
    planes = np.zeros((PLANES, *size), np.float32)
    if prompt.previous is not None:
        planes[0] = prompt.previous
    for click in prompt.clicks:
        centre = (round(click.x), round(click.y))
        cv2.circle(planes[1 if click.on else 2], centre, RADIUS, 1.0, cv2.FILLED)
    if prompt.box is not None:
        left, top, right, bottom = (round(side) for side in prompt.box)
        planes[3, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 1.0
    if prompt.others is not None:
        planes[4] = prompt.others
    return planes


def next_click(predicted: Plane, truth: Plane, ignored: Plane | None = None) -> Click | None:
    """Return the centre of the largest error, as the literature places the next click.

    The centre is the error pixel farthest from the error's border and the frame's (f-BRS, RITM,
    FocalClick). None where there is no error.
    """
    missed, surplus = truth & ~predicted, predicted & ~truth
    if ignored is not None:
        missed, surplus = missed & ~ignored, surplus & ~ignored
    best, found = 0.0, None
    for wrong, on in ((missed, True), (surplus, False)):
        if not wrong.any():
            continue
        padded = np.pad(wrong.astype(np.uint8), 1)
        depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        if depth[y, x] > best:
            best, found = float(depth[y, x]), Click(int(x), int(y), on)
    return found


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
