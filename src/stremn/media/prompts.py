"""A box, clicks or a scribble on one frame becomes a mask (with OpenCV's GrabCut)."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

from stremn.errors import StremnError
from stremn.media.frames import Picture, size_text
from stremn.media.mask_codes import parts_touching

ObjectMask = Bool[np.ndarray, "height width"]
Point = tuple[int | float, int | float]  # x, y in pixels

_WORKING_SIDE = 320  # GrabCut works on a part of the frame, no longer than this
_ROUNDS = 3
_SMALLEST_BOX = 8  # pixels: with less there are no colors to learn from
_MOST_OF_FRAME = 0.98
_RING = 0.25  # a box's surroundings that colors are learned from, in box sizes
_COLLAPSED = 0.1  # of the box: a smaller find is tried again with the middle given
_MIDDLE, _LIKELY = 0.3, 0.9  # of the box's half sides: surely and probably on the object
_KEPT_SHARE = 0.1  # parts smaller than this share of the largest are dropped
_STILL_THERE = 0.5  # of the pixels around a point
_CLICK_RADIUS = 0.012  # of the frame's diagonal, as the next
_RADII = (0.02, 0.04, 0.07, 0.11, 0.16, 0.24)


class Box(NamedTuple):
    """A rectangle in pixels: left, top, width, height."""

    x: float
    y: float
    width: float
    height: float


def parse_box(text: str) -> Box:
    """Read "x,y,w,h".

    Raises:
        StremnError: not four numbers.
    """
    numbers = _numbers(text)
    if len(numbers) != 4:
        raise StremnError(
            "A box is four numbers x,y,width,height in pixels, such as 120,80,200,150; got "
            f"{text!r}."
        )
    return Box(*numbers)


def parse_points(text: str) -> list[Point]:
    """Read "x,y x,y ..." (spaces or semicolons between points).

    Raises:
        StremnError: not pairs of numbers.
    """
    points = []
    for part in re.split(r"[;\s]+", text.strip()):
        numbers = _numbers(part)
        if len(numbers) != 2:
            raise StremnError(
                f"Points are written x,y and separated by spaces, such as '120,80 200,150'; got "
                f"{part!r}."
            )
        points.append((numbers[0], numbers[1]))
    return points


def _numbers(text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return []
    return numbers if all(math.isfinite(number) for number in numbers) else []


# ---------------------------------------------------------------- GrabCut


def box_mask(frame: Picture, box: Box, negative: Sequence[Point] = ()) -> ObjectMask:
    """Find the object that fills a box with GrabCut.

    Args:
        frame: RGB.
        box: around the object, tight, with a little room; parts outside the frame are cut off.
        negative: points (x, y) on what does not belong to it.

    Raises:
        StremnError: the box is outside the frame, too small, the whole frame, or holds nothing
            that differs from its surroundings; a point outside the frame.
    """
    size = (frame.shape[0], frame.shape[1])
    barrier = _points_mask(size, negative)
    inside = _inside(box, size)
    _, _, width, height = cv2.boundingRect(inside.astype(np.uint8))
    shown = f"{box.x:g},{box.y:g},{box.width:g},{box.height:g}"
    if not inside.any():
        raise StremnError(
            f"The box {shown} (x,y,width,height) has no part inside the frame of {size_text(size)}."
        )
    if width < _SMALLEST_BOX or height < _SMALLEST_BOX:
        raise StremnError(
            f"The box {shown} is too small: {width}x{height} pixels inside the frame, "
            f"expected {_SMALLEST_BOX}x{_SMALLEST_BOX} or more."
        )
    if inside.mean() > _MOST_OF_FRAME:
        raise StremnError(
            f"The box {shown} is the whole frame of {size_text(size)}, so there is nothing "
            "outside to compare with. Draw it closer, or give clicks or a mask."
        )
    region = _around(inside, _RING)
    hints = np.where(inside & ~barrier, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    found = _grab_cut(frame, hints, region)
    if found.sum() < _COLLAPSED * inside.sum():
        hints = np.where(barrier, cv2.GC_BGD, _middle_hints(inside)).astype(np.uint8)
        found = _grab_cut(frame, hints, region)
    if not found.any():
        raise StremnError(
            f"Nothing in the box {shown} differs enough from its surroundings. Draw the box a "
            "little larger, or give clicks or a mask."
        )
    return _without(frame, _main_parts(found), negative, keep=~inside)


def _middle_hints(inside: ObjectMask) -> UInt8[np.ndarray, "height width"]:
    """Mark the middle of the box as object, for an object that looks like its surroundings."""
    x, y, w, h = cv2.boundingRect(inside.astype(np.uint8))
    hints = np.where(inside, cv2.GC_PR_BGD, cv2.GC_BGD).astype(np.uint8)
    for share, hint in ((_LIKELY, cv2.GC_PR_FGD), (_MIDDLE, cv2.GC_FGD)):
        axes = (max(1, round(w / 2 * share)), max(1, round(h / 2 * share)))
        cv2.ellipse(hints, (x + w // 2, y + h // 2), axes, 0, 0, 360, hint, cv2.FILLED)
    return hints


def clicks_mask(
    frame: Picture,
    positive: Sequence[Point],
    negative: Sequence[Point] = (),
    within: Box | None = None,
) -> ObjectMask:
    """Find the object under the positive clicks and not under the negative ones.

    Args:
        frame: RGB.
        positive: points (x, y) on the object, one or more; a few on its differing parts help.
        negative: points on what does not belong to it.
        within: a box that the object does not leave, if one is known.

    Raises:
        StremnError: no positive click, a click outside the frame, or nothing found.
    """
    if not positive:
        raise StremnError("Clicks need at least one point on the object.")
    size = (frame.shape[0], frame.shape[1])
    barrier = _points_mask(size, negative)
    if within is not None:
        barrier |= ~_inside(within, size)
    return scribble_mask(frame, _points_mask(size, positive), barrier)


def refined_mask(
    frame: Picture,
    mask: ObjectMask,
    positive: Sequence[Point] = (),
    negative: Sequence[Point] = (),
) -> ObjectMask:
    """Correct a mask by clicks; far from them it stays as it is.

    Args:
        frame: RGB.
        mask: where the object was found.
        positive: points (x, y) on parts of the object that are missing.
        negative: points on what was taken for the object; outside `mask` they only hold
            `positive` back.

    Raises:
        StremnError: a click outside the frame, or nothing is left of the object.
    """
    size = (frame.shape[0], frame.shape[1])
    mended = mask | clicks_mask(frame, positive, negative) if positive else mask
    return _without(frame, mended, negative, keep=_points_mask(size, positive))


def _without(
    frame: Picture, mask: ObjectMask, negative: Sequence[Point], keep: ObjectMask
) -> ObjectMask:
    """Remove the regions under points from a mask; `keep` stays.

    Raises:
        StremnError: nothing is left.
    """
    size = (frame.shape[0], frame.shape[1])
    for point in negative:
        spot = _points_mask(size, [point])
        around = cv2.dilate(spot.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        still_there = mask[around & ~spot].mean() > _STILL_THERE
        wrong = scribble_mask(frame, spot, (keep & ~spot) | ~(mask | spot)) if still_there else spot
        mask = mask & ~wrong
    if not mask.any():
        raise StremnError("Nothing is left of the object. Undo the last click.")
    return mask


def scribble_mask(
    frame: Picture,
    foreground: Integer[np.ndarray, "h w"] | Bool[np.ndarray, "h w"],
    background: Integer[np.ndarray, "h2 w2"] | Bool[np.ndarray, "h2 w2"] | None = None,
) -> ObjectMask:
    """Find the object under a scribble: the non-zero pixels of `foreground`.

    How large the object is cannot be known, so GrabCut runs for several radii around the
    scribble; the find whose outline lies on the strongest edges of the picture wins. Only parts
    that touch the scribble are kept.

    Args:
        frame: RGB.
        foreground: non-zero on the object.
        background: non-zero on what is not the object.

    Raises:
        StremnError: sizes differ, an empty scribble, or nothing found.
    """
    seed = np.asarray(foreground) > 0
    barrier = np.zeros_like(seed) if background is None else np.asarray(background) > 0
    for scribble in (seed, barrier):
        if scribble.shape != frame.shape[:2]:
            raise StremnError(
                f"A scribble must have the size of the frame, expected "
                f"{size_text(frame.shape[:2])}, got {size_text(scribble.shape)}."
            )
    seed = seed & ~barrier
    if not seed.any():
        raise StremnError("The scribble marks nothing on the object.")
    edges = _edge_strength(frame)
    finds = [_find_within(frame, seed, barrier, radius) for radius in _RADII]
    finds = [find for find in finds if find.any()]
    if not finds:
        raise StremnError(
            "No object was found under the clicks. Click on more parts of the object, or draw a "
            "box around it."
        )
    return max(finds, key=lambda find: _outline_strength(find, edges))


def _find_within(
    frame: Picture, seed: ObjectMask, barrier: ObjectMask, radius: float
) -> ObjectMask:
    """Return the object around a seed, of about a `radius` (of the diagonal) from the seed."""
    apart = _apart_from_hull(seed) / math.hypot(*seed.shape)
    hints = np.full(seed.shape, cv2.GC_BGD, dtype=np.uint8)
    hints[apart < 2 * radius] = cv2.GC_PR_BGD
    hints[apart < radius] = cv2.GC_PR_FGD
    hints[barrier] = cv2.GC_BGD
    hints[seed] = cv2.GC_FGD
    return parts_touching(_grab_cut(frame, hints, apart < 3 * radius), seed)


def _apart_from_hull(seed: ObjectMask) -> Float[np.ndarray, "height width"]:
    """Return pixels to the convex hull of the seed."""
    points = cv2.findNonZero(seed.astype(np.uint8))
    hull = np.ones(seed.shape, dtype=np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(points), 0)
    hull[seed] = 0
    return cv2.distanceTransform(hull, cv2.DIST_L2, 5)


def _edge_strength(frame: Picture) -> Float[np.ndarray, "height width"]:
    """Return the color gradient, 0..1 with 1 for the strongest tenth of the picture."""
    smooth = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2LAB), (5, 5), 0).astype(np.float32)
    across, down = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    strength = np.sqrt((across**2 + down**2).sum(axis=-1))
    return np.minimum(strength / max(float(np.percentile(strength, 90)), 1e-6), 1)


def _outline_strength(mask: ObjectMask, edges: Float[np.ndarray, "height width"]) -> float:
    """Return the mean strength of the edges under the outline of a mask."""
    solid = mask.astype(np.uint8)
    block = np.ones((3, 3), np.uint8)
    outline = cv2.dilate(solid, block) != cv2.erode(solid, block)
    return float(edges[outline].mean()) if outline.any() else 0.0


def _inside(box: Box, size: tuple[int, int]) -> ObjectMask:
    """Return the part of a box that is in a frame of (height, width)."""
    left, top = max(0, round(box.x)), max(0, round(box.y))
    right, bottom = max(0, round(box.x + box.width)), max(0, round(box.y + box.height))
    inside = np.zeros(size, dtype=bool)
    inside[top:bottom, left:right] = True
    return inside


def _points_mask(size: tuple[int, int], points: Sequence[Point]) -> ObjectMask:
    """Return a small disc around each point; raises StremnError for one outside the frame."""
    radius = max(2, round(_CLICK_RADIUS * math.hypot(*size)))
    mask = np.zeros(size, dtype=np.uint8)
    for x, y in points:
        if not (0 <= x < size[1] and 0 <= y < size[0]):
            raise StremnError(f"The click {x:g},{y:g} is outside the frame of {size_text(size)}.")
        cv2.circle(mask, (int(x), int(y)), radius, 1, cv2.FILLED)
    return mask > 0


def _grab_cut(
    frame: Picture, hints: UInt8[np.ndarray, "height width"], region: ObjectMask
) -> ObjectMask:
    """Run GrabCut from hints on a part of the frame at a working size; deterministic."""
    x, y, w, h = cv2.boundingRect(region.astype(np.uint8))
    part, marks = frame[y : y + h, x : x + w], hints[y : y + h, x : x + w]
    scale = min(1.0, _WORKING_SIDE / max(w, h))
    small = (max(1, round(w * scale)), max(1, round(h * scale)))
    picture = cv2.resize(part, small, interpolation=cv2.INTER_AREA)
    marks = cv2.resize(marks, small, interpolation=cv2.INTER_NEAREST)
    if not _has_both(marks):
        return np.zeros(hints.shape, dtype=bool)
    cv2.setRNGSeed(0)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(
        picture, marks, (0, 0, 1, 1), background, foreground, _ROUNDS, cv2.GC_INIT_WITH_MASK
    )
    inside = ((marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)).astype(np.float32)
    found = np.zeros(hints.shape, dtype=bool)
    found[y : y + h, x : x + w] = cv2.resize(inside, (w, h), interpolation=cv2.INTER_LINEAR) > 0.5
    return found


def _has_both(marks: UInt8[np.ndarray, "height width"]) -> bool:
    """Return whether the hints hold both sides, as GrabCut needs."""
    inside = (marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)
    return bool(inside.any() and not inside.all())


def _around(mask: ObjectMask, share: float) -> ObjectMask:
    """Return the mask's bounding box, grown on every side by a share of its size."""
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    grown = np.zeros_like(mask)
    dx, dy = max(_SMALLEST_BOX, round(w * share)), max(_SMALLEST_BOX, round(h * share))
    grown[max(0, y - dy) : y + h + dy, max(0, x - dx) : x + w + dx] = True
    return grown


def _main_parts(mask: ObjectMask) -> ObjectMask:
    """Return the largest connected part and those that are not much smaller."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    return (areas >= _KEPT_SHARE * areas.max())[parts] & mask
