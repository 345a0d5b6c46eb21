"""Limit what a click or a refinement changes in a mask: its own side, and around it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float

from stremn.media.finding import Click

LARGEST_CUT = 0.5
"""Share of an object that one click off it may take away."""

LARGEST_GAIN = 0.5
"""Share of an object that one click on it may add where its change is local."""

DISC = 0.01
"""Radius of a click's own disc, as a share of the frame's longer side."""

NEARBY = 0.04
"""How far from a click it may change a mask though the network does not follow it; as `DISC`."""

DOUBT = 0.3
"""How much of a click's lead in doubt over its surroundings is taken to share its side."""

STILL_IT = 0.5
"""IoU with a rough mask, at least, of what is taken for the same object."""

Probability = Float[np.ndarray, "height width"]
Plane = Bool[np.ndarray, "height width"]


def follows(found: Probability, click: Click) -> bool:
    """Return whether a mask agrees with a click at its pixel."""
    return bool(found[_pixel(click, found.shape)] > 0.5) == click.on


def corrected(
    found: Probability, previous: Probability, clicks: Sequence[Click], *, local: bool
) -> Probability | None:
    """Return the mask before the latest click, corrected by that click.

    A click on the object adds to the mask and a click off it takes away from it, whatever else the
    new answer would change. Earlier clicks of the other kind keep their pixels. Where the change
    is `local`, or would run over such a click, only its connected part at the latest click is
    taken (progressive merge, FocalClick, CVPR 2022).

    Args:
        found: what the network answers to all clicks.
        previous: the mask before the latest click.
        clicks: all clicks, the latest one last.
        local: whether parts of the change that do not touch the click are left out.

    Returns:
        None where the answer does not follow the click, or would change too much.
    """
    click = clicks[-1]
    if not follows(found, click):
        return None
    now, before = found > 0.5, previous > 0.5
    change = now & ~before if click.on else before & ~now
    against = [c for c in clicks[:-1] if c.on != click.on and change[_pixel(c, change.shape)]]
    if against:
        change &= ~discs(against, change.shape)
    if local or against:
        part = _part_at(change, click)
        if part is None:
            return None
        change = part
    if (local or not click.on) and _changes_too_much(change, before, click):
        return None
    return np.where(change, found, previous)


def refined(found: Probability, rough: Probability) -> Probability:
    """Return the network's mask for a rough mask, unless it is another object."""
    now, before = found > 0.5, rough > 0.5
    same = (now & before).sum() >= STILL_IT * (now | before).sum()
    return found if same else rough


def taken_at_its_word(
    found: Probability, previous: Probability, clicks: Sequence[Click]
) -> Probability:
    """Return the mask before the latest click, changed near the click against the network.

    What the network doubts as much as it doubts the click, in its neighbourhood, shares its side;
    where there is no such thing, the click's disc does. Earlier clicks keep their pixels.
    """
    click, size = clicks[-1], previous.shape
    near = discs([click], size, NEARBY)
    wrong = near & ((previous > 0.5) != click.on)
    if wrong.any():
        certain = np.clip(found, 1e-6, 1 - 1e-6)
        lead = np.log(certain / (1 - certain))
        here, around = lead[_pixel(click, size)], np.median(lead[wrong])
        level = 0.0 if follows(found, click) else here + DOUBT * (around - here)
        moved = np.where(near, 1 / (1 + np.exp(level - lead)), previous).astype(np.float32)
        part = corrected(moved, previous, clicks, local=True)
        if part is not None:
            return part
    disc = discs([click], size)
    for earlier in clicks[:-1]:
        if earlier.on != click.on:
            disc[_pixel(earlier, size)] = False
    disc[_pixel(click, size)] = True
    return np.where(disc, np.float32(click.on), previous)


def discs(clicks: Sequence[Click], size: tuple[int, ...], share: float = DISC) -> Plane:
    """Return the pixels of the clicks' discs in a frame of (height, width); `share` as `DISC`."""
    plane = np.zeros(size, np.uint8)
    radius = max(2, round(share * max(size)))
    for click in clicks:
        cv2.circle(plane, (round(click.x), round(click.y)), radius, 1, cv2.FILLED)
    return plane > 0


def _changes_too_much(change: Plane, before: Plane, click: Click) -> bool:
    most = LARGEST_GAIN if click.on else LARGEST_CUT
    return bool(change.sum() > most * before.sum())


def _part_at(change: Plane, click: Click) -> Plane | None:
    """Return the connected part of a change that a click lies on; None if there is none."""
    _, parts = cv2.connectedComponents(change.astype(np.uint8), connectivity=8)
    part = parts[_pixel(click, change.shape)]
    return None if part == 0 else parts == part


def _pixel(click: Click, size: tuple[int, ...]) -> tuple[int, int]:
    row = min(max(round(click.y), 0), size[0] - 1)
    return row, min(max(round(click.x), 0), size[1] - 1)
