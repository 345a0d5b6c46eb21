"""Measure objects in masks and id maps, and draw random shapes.

Masks are uint8 "height width", 0 or 1 unless said otherwise; in id maps 0 is background and 255
void. Everything random takes a numpy generator.
"""

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from stremn.media.frames import Picture
from stremn.media.mask_codes import VOID

Mask = UInt8[np.ndarray, "height width"]


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """Return the smallest rectangle x0, y0, x1, y1 (ends excluded) around the non-zero pixels."""
    x, y, width, height = cv2.boundingRect(mask)
    return (x, y, x + width, y + height) if width and height else None


def around(box: tuple[int, int, int, int], margin: int) -> tuple[slice, slice]:
    """Return rows and columns of a box x0, y0, x1, y1 and `margin` pixels on every side."""
    x0, y0, x1, y1 = box
    return slice(max(0, y0 - margin), y1 + margin), slice(max(0, x0 - margin), x1 + margin)


def touches_border(mask: np.ndarray, share: float = 0.25) -> bool:
    """Return whether the object is cut off by the edge of its picture along `share` of its box."""
    box = bounding_box(mask)
    if box is None:
        return True
    width, height = box[2] - box[0], box[3] - box[1]
    ends = ((mask[0], width), (mask[-1], width), (mask[:, 0], height), (mask[:, -1], height))
    return any(np.count_nonzero(line) > share * length for line, length in ends)


def id_counts(ids: Mask) -> Float32[np.ndarray, "256"]:
    """Return pixels of each id; background and void count as none."""
    counts = cv2.calcHist([ids], [0], None, [256], [0, 256]).ravel()
    counts[[0, VOID]] = 0
    return counts


def large_ids(ids: Mask, least: float = 0.0) -> list[int]:
    """Return ids, rising, of the objects that cover more than `least` of a map, a share in [0,
    1)."""
    return [int(number) for number in np.flatnonzero(id_counts(ids) > least * ids.size)]


def middle_of(mask: Mask) -> tuple[float, float] | None:
    """Return the mean place (x, y) of the non-zero pixels, of every second row and column.

    Of all, should those hold none: a wire is one pixel wide. None of an empty mask.
    """
    for step in (2, 1):
        moments = cv2.moments(mask[::step, ::step], binaryImage=True)
        area = moments["m00"]
        if area:
            return step * moments["m10"] / area, step * moments["m01"] / area
    return None


def half_plane(rng: np.random.Generator, mask: Mask) -> Mask:
    """Return 1 on one side of a random line through the middle of the non-zero pixels."""
    moments = cv2.moments(mask, binaryImage=True)
    middle = (moments["m10"] / moments["m00"], moments["m01"] / moments["m00"])
    angle = rng.uniform(0, 2 * np.pi)
    x = np.arange(mask.shape[1])[None] - middle[0]
    y = np.arange(mask.shape[0])[:, None] - middle[1]
    return (np.cos(angle) * x + np.sin(angle) * y > 0).astype(np.uint8)


def feathered(mask: Mask) -> Mask:
    """Return an object mask (0 or 1) as opacity 0-255 with an edge about two pixels wide."""
    return cv2.GaussianBlur(mask * np.uint8(255), (3, 3), 0)


def blob(rng: np.random.Generator, side: int) -> Mask:
    """Return a random shape, 0 or 1, in a `side` x `side` square: a bar or a rounded star-like
    patch."""
    mask = np.zeros((side, side), dtype=np.uint8)
    if rng.random() < 0.4:
        width = int(side * rng.uniform(0.15, 0.5))
        start = (side - width) // 2
        mask[:, start : start + width] = 1
        return mask
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    waves = rng.normal(0, 1, (4, 2)) / np.arange(2, 6)[:, None]
    order = np.arange(1, 5)[:, None] * angles
    radius = 1 + 0.45 * (waves[:, :1] * np.sin(order) + waves[:, 1:] * np.cos(order)).sum(axis=0)
    radius = np.clip(radius, 0.25, None)
    radius *= 0.48 * side / radius.max()
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius[:, None] + side / 2
    cv2.fillPoly(mask, [points.astype(np.int32)], 1)
    return mask


def shrunk_to(
    longest: int, image: Picture, mask: Mask
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """Reduce a picture and its id map so that no side exceeds `longest` pixels."""
    height, width = mask.shape
    factor = longest / max(height, width)
    if factor >= 1:
        return image, mask
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return (
        cv2.resize(image, size, interpolation=cv2.INTER_AREA),
        cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT),
    )
