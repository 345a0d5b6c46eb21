"""Remove false positives far from the object's last place (Sec 4.1.1).

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
from jaxtyping import Bool, Integer

REACH = 1.0
"""How far a region may lie from the previous object, in units of the square root of its area."""


def near_regions(
    mask: Bool[np.ndarray, "height width"],
    previous: Bool[np.ndarray, "height width"],
    reach: float = REACH,
) -> Bool[np.ndarray, "height width"]:
    """Return the regions of an object that lie near the same object of the previous frame.

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


def distant_regions(
    labels: Integer[np.ndarray, "height width"],
    previous: Integer[np.ndarray, "height width"],
    reach: float = REACH,
) -> Bool[np.ndarray, "height width"]:
    """Return the pixels of all regions that are far from their object's last place.

    Args:
        labels: label map of the new frame, or the likeliest layer of each pixel; 0 is background.
        previous: the same of the previous frame, filtered.
        reach: see :func:`near_regions`.
    """
    far = np.zeros(labels.shape, dtype=bool)
    for i in np.flatnonzero(np.bincount(labels.ravel())):
        if i != 0:
            mask = labels == i
            near = near_regions(mask, previous == i, reach)
            if near is not mask:
                far |= mask & ~near
    return far


def remove_distant_regions(
    labels: Integer[np.ndarray, "height width"],
    previous: Integer[np.ndarray, "height width"] | None,
    reach: float = REACH,
) -> Integer[np.ndarray, "height width"]:
    """Remove from a label map the regions that are far from their object's last place.

    Args:
        labels: label map of the new frame.
        previous: label map of the previous frame, filtered; None before the first frame.
        reach: see :func:`near_regions`.

    Returns:
        A new label map of the same type; removed pixels become background.
    """
    result = labels.copy()
    if previous is not None:
        result[distant_regions(labels, previous, reach)] = 0
    return result


@dataclass
class DistantRegionFilter:
    """The filter for a stream of label maps; it keeps the last one.

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
