"""Region similarity J, contour accuracy F and J&F, as the DAVIS toolkit defines them.

J is the Jaccard index of two binary masks. F is the F-measure of their contours, matched within
a tolerance of 0.8 % of the image diagonal. Both are computed for each object and frame, averaged
over the scored frames of an object, then over objects. Everything here is a pure function.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

from stremn.errors import StremnError

CONTOUR_TOLERANCE = 0.008
"""Contours may be this fraction of the image diagonal apart and still match (DAVIS)."""


@dataclass(frozen=True)
class Statistics:
    """Mean, recall and decay of one object's scores over its scored frames.

    Attributes:
        mean: average score, in [0, 1].
        recall: fraction of frames that score more than 0.5, in [0, 1].
        decay: mean of the first quarter minus mean of the last, in [-1, 1]; positive means that
            the score falls with time.
    """

    mean: float
    recall: float
    decay: float


@dataclass(frozen=True)
class Scores:
    """J and F statistics of one object, or their average over objects."""

    j: Statistics
    f: Statistics

    @property
    def j_and_f(self) -> float:
        """J&F: the average of mean J and mean F, in [0, 1]."""
        return (self.j.mean + self.f.mean) / 2


def contour_radius(height: int, width: int, tolerance: float = CONTOUR_TOLERANCE) -> int:
    """Return the tolerance of contour matching in pixels: 0.8 % of the diagonal, rounded up."""
    return math.ceil(tolerance * math.hypot(height, width))


def disk(radius: int) -> UInt8[np.ndarray, "size size"]:
    """Return all offsets at Euclidean distance <= ``radius`` from the center, as 0 / 1."""
    offset = np.arange(-radius, radius + 1)
    return (offset[:, None] ** 2 + offset[None, :] ** 2 <= radius**2).astype(np.uint8)


def contour(
    mask: Bool[np.ndarray, "height width"] | UInt8[np.ndarray, "height width"],
) -> UInt8[np.ndarray, "height width"]:
    """Return contour pixels of a binary mask, as 0 / 1.

    A pixel is on the contour if it differs from its right, lower or lower right neighbor. The last
    row compares to the right only, the last column downwards only, and the last corner is never
    on the contour.
    """
    seg = mask.view(np.uint8)
    edge = np.zeros(seg.shape, np.uint8)
    body = seg[:-1, :-1]
    edge[:-1, :-1] = (body ^ seg[:-1, 1:]) | (body ^ seg[1:, :-1]) | (body ^ seg[1:, 1:])
    edge[-1, :-1] = seg[-1, :-1] ^ seg[-1, 1:]
    edge[:-1, -1] = seg[:-1, -1] ^ seg[1:, -1]
    return edge


def region_similarity(
    predicted: Bool[np.ndarray, "height width"], truth: Bool[np.ndarray, "height width"]
) -> float:
    """Compute J of one pair of binary masks: intersection over union, 1 if both are empty."""
    union = np.count_nonzero(predicted | truth)
    return 1.0 if union == 0 else np.count_nonzero(predicted & truth) / union


def contour_accuracy(
    predicted: Bool[np.ndarray, "height width"],
    truth: Bool[np.ndarray, "height width"],
    radius: int | None = None,
) -> float:
    """Compute F of one pair of binary masks: contour pixels matched within ``radius``.

    Precision is the fraction of predicted contour pixels with a true one in reach, recall the
    fraction of true ones with a predicted one in reach. A contour absent from both scores 1,
    absent from one scores 0.

    Args:
        predicted: binary mask.
        truth: binary mask of the same size.
        radius: reach in pixels; by default from the size of the masks (:func:`contour_radius`).
    """
    reach = contour_radius(*truth.shape) if radius is None else radius
    found, true = contour(predicted), contour(truth)
    found_pixels, true_pixels = cv2.countNonZero(found), cv2.countNonZero(true)
    if found_pixels == 0 or true_pixels == 0:
        return 1.0 if found_pixels == true_pixels else 0.0
    element = disk(reach)
    precision = cv2.countNonZero(found & cv2.dilate(true, element)) / found_pixels
    recall = cv2.countNonZero(true & cv2.dilate(found, element)) / true_pixels
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def score_frame(
    predicted: Integer[np.ndarray, "rows columns"],
    truth: Integer[np.ndarray, "height width"],
    ids: Sequence[int],
) -> Float[np.ndarray, "o 2"]:
    """Compute J and F of each object of a frame.

    Pixels of ids that are not asked for (void 255 among them) count as background. An object that
    is not predicted is an empty mask.

    Args:
        predicted: label map.
        truth: label map of the same size.
        ids: the objects to score.

    Returns:
        One row (J, F) for each id.

    Raises:
        StremnError: the label maps differ in size.
    """
    if predicted.shape != truth.shape:
        raise StremnError(
            f"The prediction is {_size(predicted)} pixels but the ground truth is {_size(truth)}. "
            "Predictions must have the size of the ground truth."
        )
    radius = contour_radius(*truth.shape)
    return np.array(
        [_score_object(predicted == i, truth == i, radius) for i in ids], np.float64
    ).reshape(-1, 2)


def swapped(
    predicted: Integer[np.ndarray, "height width"],
    truth: Integer[np.ndarray, "height width"],
    ids: Sequence[int],
) -> Bool[np.ndarray, " o"]:
    """Return whether each object's mask overlaps another object more than its own.

    Then the object took another's place. No benchmark's measure, but what a user sees at once.

    Args:
        predicted: label map.
        truth: label map of the same size.
        ids: the objects; pixels of all other ids count as background.
    """
    overlaps = np.array(
        [[np.count_nonzero(truth[predicted == i] == k) for k in ids] for i in ids], np.int64
    ).reshape(len(ids), len(ids))
    own = overlaps.diagonal().copy()
    np.fill_diagonal(overlaps, 0)
    return overlaps.max(axis=1, initial=0) > own


def _score_object(
    predicted: Bool[np.ndarray, "height width"],
    truth: Bool[np.ndarray, "height width"],
    radius: int,
) -> tuple[float, float]:
    box = _box_of_both(predicted, truth)
    predicted, truth = predicted[box], truth[box]
    return region_similarity(predicted, truth), contour_accuracy(predicted, truth, radius)


def _box_of_both(
    predicted: Bool[np.ndarray, "height width"], truth: Bool[np.ndarray, "height width"]
) -> tuple[slice, slice]:
    """Return the box of both masks with a margin of one pixel, in which J and F are the same.

    Contours lie at most one pixel outside a mask, and matching looks at contour pixels only, so
    nothing outside the box matters. A last row or column of the box that is not the image's is
    empty, where the rules for the last row and the last column agree with the general one.
    """
    x, y, width, height = cv2.boundingRect((predicted | truth).view(np.uint8))
    return slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)


def statistics(scores: Float[np.ndarray, " t"], compat: bool = False) -> Statistics:
    """Compute mean, recall and decay of the scores of one object.

    Decay compares the first and the last of four overlapping quarters: with cuts
    ``round(linspace(1, t, 5)) - 1``, both ends of a quarter belong to it.

    Args:
        scores: one score per scored frame.
        compat: repeat the DAVIS toolkit's overflow, which keeps the cuts in 8 bits and so compares
            wrong quarters (or none, giving NaN) beyond 256 scored frames.

    Raises:
        StremnError: there are no scores.
    """
    if scores.size == 0:
        raise StremnError("There is no scored frame; at least one frame must have ground truth.")
    cuts = np.round(np.linspace(1, scores.size, 5) + 1e-10).astype(np.int64) - 1
    if compat:
        cuts = cuts.astype(np.uint8).astype(np.int64)
    first, last = scores[cuts[0] : cuts[1] + 1], scores[cuts[3] : cuts[4] + 1]
    decay = float(first.mean() - last.mean()) if first.size and last.size else math.nan
    return Statistics(float(scores.mean()), float((scores > 0.5).mean()), decay)


def object_scores(scores: Float[np.ndarray, "t 2"], compat: bool = False) -> Scores:
    """Return J and F statistics of one object from its (J, F) row for each scored frame."""
    return Scores(statistics(scores[:, 0], compat), statistics(scores[:, 1], compat))


def mean_scores(scores: Iterable[Scores]) -> Scores:
    """Average over objects (not over videos), as DAVIS does.

    Raises:
        StremnError: there are no objects.
    """
    rows = list(scores)
    if not rows:
        raise StremnError("There is no scored object, so there is no mean.")
    return Scores(_mean([row.j for row in rows]), _mean([row.f for row in rows]))


def seen_unseen_mean(groups: Mapping[str, Scores]) -> float:
    """Return the YouTube-VOS overall score G: the average of J and F over seen and unseen
    classes."""
    return float(np.mean([group.j_and_f for group in groups.values()]))


def _mean(rows: Sequence[Statistics]) -> Statistics:
    columns = np.array([(row.mean, row.recall, row.decay) for row in rows])
    mean, recall, decay = columns.mean(axis=0).tolist()
    return Statistics(mean, recall, decay)


def _size(labels: Integer[np.ndarray, "height width"]) -> str:
    return f"{labels.shape[1]}x{labels.shape[0]}"
