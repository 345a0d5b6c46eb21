"""Removal of false positives far from where the object was (Sec 4.1.1).

The paper removes "some false positive predictions that are far away from the object in the
previous frame" and leaves the details to a supplement that is not available. The rule here: split
the object of the new frame into connected regions; keep those within a distance of the previous
frame's object that is relative to that object's size. An object that was absent may appear
anywhere, and the filter never removes an object altogether.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Integer

REACH = 1.0
"""How far a region may lie from the previous object, in units of the square root of its area."""


def near_regions(
    mask: Bool[np.ndarray, "height width"],
    previous: Bool[np.ndarray, "height width"],
    reach: float = REACH,
) -> Bool[np.ndarray, "height width"]:
    """The regions of an object that lie near the same object of the previous frame.

    Regions are 8-connected. The distance of a region is the smallest Euclidean distance in pixels
    from any of its pixels to the previous object; it is near if that is at most ``reach`` times
    the square root of the previous object's area.

    Args:
        mask: the object in the new frame.
        previous: the object in the previous frame, after the filter.
        reach: in units of the previous object's size (square root of its area).

    Returns:
        ``mask`` without far regions; ``mask`` itself if ``previous`` is empty or no region is near.
    """
    area = cv2.countNonZero(previous.view(np.uint8))
    if area == 0:
        return mask
    regions, region_of = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    if regions <= 2:  # background and one region, which is never removed
        return mask
    away = cv2.distanceTransform((~previous).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Squared distances are whole numbers, so that rounding decides no tie.
    squared = np.rint(np.square(away[mask], dtype=np.float64))
    kept = np.unique(region_of[mask][squared <= reach**2 * area])
    return mask if kept.size in (0, regions - 1) else np.isin(region_of, kept)


def remove_distant_regions(
    labels: Integer[np.ndarray, "height width"],
    previous: Integer[np.ndarray, "height width"] | None,
    reach: float = REACH,
) -> Integer[np.ndarray, "height width"]:
    """A label map without the regions of any object that are far from where it was.

    Args:
        labels: label map of the new frame.
        previous: label map of the previous frame, filtered; None before the first frame.
        reach: see :func:`near_regions`.

    Returns:
        A new label map of the same type; removed pixels become background.
    """
    if previous is None:
        return labels
    result = labels.copy()
    for i in np.unique(labels):
        if i != 0:
            mask = labels == i
            result[mask & ~near_regions(mask, previous == i, reach)] = 0
    return result


def remove_distant_shares(
    shares: Float[np.ndarray, "c h w"],
    previous: Integer[np.ndarray, "h w"],
    reach: float = REACH,
) -> Float[np.ndarray, "c h w"]:
    """The filter on probabilities, for use before a frame is memorized.

    Where a region of an object (pixels at which it is the likeliest) is far from where the object
    was, its probability goes to the background.

    Args:
        shares: probabilities of background and objects, which sum to one in each pixel.
        previous: the likeliest layer of each pixel in the previous frame, filtered.
        reach: see :func:`near_regions`.

    Returns:
        New probabilities, which sum to one; ``shares`` itself where nothing is far.
    """
    now = shares.argmax(0)
    result = shares
    for layer in range(1, len(shares)):
        mask = now == layer
        far = mask & ~near_regions(mask, previous == layer, reach)
        if far.any():
            result = result.copy() if result is shares else result
            result[0][far] += result[layer][far]
            result[layer][far] = 0
    return result


@dataclass
class DistantRegionFilter:
    """The filter over a stream of label maps, remembering the last one.

    Attributes:
        reach: see :func:`near_regions`.
        previous: the last filtered label map.
    """

    reach: float = REACH
    previous: Integer[np.ndarray, "height width"] | None = None

    def __call__(
        self, labels: Integer[np.ndarray, "height width"]
    ) -> Integer[np.ndarray, "height width"]:
        """Filter the next label map of the stream."""
        self.previous = remove_distant_regions(labels, self.previous, self.reach)
        return self.previous
