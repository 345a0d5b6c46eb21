"""Interface of finders, which turn a prompt into a mask; GrabCut is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool

from stremn.errors import StremnError
from stremn.media.frames import Picture
from stremn.media.prompts import Box, box_mask, clicks_mask, refined_mask

ObjectMask = Bool[np.ndarray, "height width"]


class Click(NamedTuple):
    """A point in pixels, and whether it lies on the object."""

    x: float
    y: float
    on: bool


class MaskFinder(Protocol):
    """Finds an object in a frame."""

    def __call__(
        self,
        frame: Picture,
        *,
        box: Box | None = None,
        clicks: Sequence[Click] = (),
        previous: ObjectMask | None = None,
        others: ObjectMask | None = None,
    ) -> ObjectMask:
        """Return the mask of one object.

        Args:
            frame: RGB.
            box: a rectangle around the object.
            clicks: points on and off the object, in the order in which they were given.
            previous: a rough mask; the clicks correct it.
            others: pixels of other objects, which the object does not get.

        Raises:
            StremnError: no prompt, one that does not fit the frame or is contradictory, or no
                object found.
        """
        ...


def grab_cut(
    frame: Picture,
    *,
    box: Box | None = None,
    clicks: Sequence[Click] = (),
    previous: ObjectMask | None = None,
    others: ObjectMask | None = None,
) -> ObjectMask:
    """Find an object by its colors (OpenCV's GrabCut); see `MaskFinder`."""
    check_prompt(frame, box, clicks, previous)
    on = [(x, y) for x, y, is_on in clicks if is_on]
    off = [(x, y) for x, y, is_on in clicks if not is_on]
    if previous is not None:
        found = refined_mask(frame, previous, on, off) if clicks else previous
    elif on:
        found = clicks_mask(frame, on, off, within=box)
    elif box is not None:
        found = box_mask(frame, box, off)
    else:
        raise StremnError("Clicks need at least one point on the object.")
    return without_others(found, others)


def check_prompt(
    frame: Picture, box: Box | None, clicks: Sequence[Click], previous: ObjectMask | None
) -> None:
    """Refuse a prompt that is empty, outside the frame or contradictory.

    Raises:
        StremnError: one of these.
    """
    height, width = frame.shape[:2]
    if box is None and not clicks and previous is None:
        raise StremnError("Say what to find: a box around the object, or points on it.")
    if previous is not None and previous.shape != (height, width):
        raise StremnError(
            f"The mask to refine is {previous.shape[1]}x{previous.shape[0]} pixels, the frame "
            f"{width}x{height}; they must be equal."
        )
    check_place((height, width), box, clicks)


def check_place(size: tuple[int, int], box: Box | None, clicks: Sequence[Click]) -> None:
    """Refuse a box or clicks outside a frame of (height, width), or contradictory clicks.

    Raises:
        StremnError: one of these.
    """
    height, width = size
    for x, y, _ in clicks:
        if not (0 <= x < width and 0 <= y < height):
            raise StremnError(f"The click {x:g},{y:g} is outside the frame of {width}x{height}.")
    on = {(int(x), int(y)) for x, y, is_on in clicks if is_on}
    off = {(int(x), int(y)) for x, y, is_on in clicks if not is_on}
    for x, y in sorted(on & off):
        raise StremnError(
            f"The click {x},{y} is marked as on the object and off it. Remove one of the two."
        )
    if box is not None:
        _check_box(box, width, height)


_SMALLEST_BOX = 4
"""Pixels inside the frame on each side of a box."""


def _check_box(box: Box, width: int, height: int) -> None:
    shown = f"{box.x:g},{box.y:g},{box.width:g},{box.height:g}"
    across = min(box.x + box.width, width) - max(box.x, 0)
    down = min(box.y + box.height, height) - max(box.y, 0)
    if across <= 0 or down <= 0:
        raise StremnError(
            f"The box {shown} (x,y,width,height) has no part inside the frame of {width}x{height}."
        )
    if across < _SMALLEST_BOX or down < _SMALLEST_BOX:
        raise StremnError(
            f"The box {shown} is too small: {across:g}x{down:g} pixels inside the frame, expected "
            f"{_SMALLEST_BOX}x{_SMALLEST_BOX} or more."
        )


class NothingFoundError(StremnError):
    """A prompt leads to no object, or only to pixels of other objects."""


def without_others(found: ObjectMask, others: ObjectMask | None) -> ObjectMask:
    """Return a mask without the pixels of other objects; refuse one that is empty.

    Raises:
        NothingFoundError: nothing is left.
    """
    rest = found if others is None else found & ~others
    if not rest.any():
        raise NothingFoundError(
            "No object was found. Click on more parts of the object, undo the last click, or "
            "draw a box around it."
        )
    return rest


def find_in_box(
    find: MaskFinder,
    frame: Picture,
    box: Box,
    others: ObjectMask,
    clicks: Sequence[Click] = (),
) -> ObjectMask:
    """Find the object in a box; one that lies wholly on other objects gets their pixels.

    A ball in front of a man is part of the man's mask. Who then draws a box around the ball wants
    the ball.

    Args:
        find: what finds an object.
        frame: RGB.
        box: around the object.
        others: pixels of other objects.
        clicks: points on and off the object.

    Raises:
        StremnError: as `MaskFinder`.
    """
    try:
        return find(frame, box=box, clicks=clicks, others=others)
    except NothingFoundError:
        if not others.any():
            raise
        return find(frame, box=box, clicks=clicks)
