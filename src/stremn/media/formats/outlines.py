"""Masks as polygons, such that filling a polygon gives the mask back.

Points are in pixels; pixel (0, 0) covers 0..1. An outline runs a quarter of a pixel inside the
object's edge. So programs that fill by pixel centres (COCO) give the mask back, and programs that
round points down and draw the line too (OpenCV, Ultralytics) do so but for a rare pixel where a
hole or a part is joined.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float

Polygon = Float[np.ndarray, "_ 2"]
"""Points (x, y) in pixels."""


def outlines(mask: Bool[np.ndarray, "height width"]) -> list[Polygon]:
    """Return a polygon for each connected part; holes are cut in along a line of no width."""
    top, left, inside = _cropped(mask)
    if not inside.size:
        return []
    doubled = inside.repeat(2, axis=0).repeat(2, axis=1).view(np.uint8)
    found, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    loops = [(loop[:, 0] + 0.5) / 2 + (left, top) for loop in found]
    parents = hierarchy[0, :, 3].tolist()
    parts: dict[int, Polygon] = {i: loop for i, loop in enumerate(loops) if parents[i] < 0}
    for loop, parent in zip(loops, parents, strict=True):
        if parent >= 0:
            parts[parent] = _spliced(parts[parent], loop)
    return list(parts.values())


def one_outline(mask: Bool[np.ndarray, "height width"]) -> Polygon | None:
    """Return one polygon for the object, its parts joined by lines of no width; None if empty."""
    parts = sorted(outlines(mask), key=len, reverse=True)
    return joined(parts) if parts else None


def joined(parts: Sequence[Polygon]) -> Polygon:
    """Join polygons to one, each by a line to those before."""
    whole = parts[0]
    for part in parts[1:]:
        whole = _spliced(whole, part)
    return whole


def _cropped(
    mask: Bool[np.ndarray, "height width"],
) -> tuple[int, int, Bool[np.ndarray, "h w"]]:
    """Return row and column where the object begins, and the mask from there to its end."""
    x, y, width, height = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
    return y, x, np.ascontiguousarray(mask[y : y + height, x : x + width], dtype=bool)


def _spliced(outer: Polygon, inner: Polygon) -> Polygon:
    """Return `outer` with a way to `inner`, around it and back; the way is short, if not shortest.

    The shortest of all would take time and memory by the product of their lengths.
    """
    i = _nearest(outer, inner[0])
    j = _nearest(inner, outer[i])
    round_trip = np.concatenate([inner[j:], inner[: j + 1]])
    return np.concatenate([outer[: i + 1], round_trip, outer[i:]])


def _nearest(polygon: Polygon, point: Float[np.ndarray, " 2"]) -> int:
    return int(((polygon - point) ** 2).sum(axis=-1).argmin())
