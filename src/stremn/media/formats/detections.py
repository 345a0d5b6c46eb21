"""Results as `supervision.Detections`, for its annotators, zones and trackers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
from jaxtyping import Float

from stremn.errors import MissingExtraError
from stremn.media.masks import Labels

if TYPE_CHECKING:
    from supervision import Detections


class Result(Protocol):
    """What a session answers for a frame, or what a `ResultWriter` is given."""

    @property
    def labels(self) -> Labels:
        """Ids "height width"; 0 is background."""
        ...

    @property
    def ids(self) -> tuple[int, ...]:
        """The objects followed, in the order of `probabilities`."""
        ...

    @property
    def probabilities(self) -> Float[np.ndarray, "o height width"] | None:
        """Probability of each object."""
        ...


def detections(result: Result) -> Detections:
    """Return the objects that are seen in a frame: masks, boxes, ids and confidence.

    `tracker_id` is the object's id; `confidence` its mean probability over its mask, 1 where there
    are no probabilities; `class_id` is the id too, as there are no other classes.

    Raises:
        MissingExtraError: the package supervision is not installed.
    """
    try:
        from supervision import Detections
    except ImportError as error:
        raise MissingExtraError("supervision", "supervision") from error

    ids = np.unique(result.labels[result.labels > 0]).astype(int)
    if not len(ids):
        return Detections.empty()
    masks = result.labels[None] == ids[:, None, None]
    return Detections(
        xyxy=np.array([_box(mask) for mask in masks], dtype=np.float64),
        mask=masks,
        confidence=np.array([_confidence(result, item) for item in ids.tolist()]),
        class_id=ids,
        tracker_id=ids,
    )


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom; the last two are those of the last pixel."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return x, y, x + width - 1, y + height - 1


def _confidence(result: Result, item: int) -> float:
    if result.probabilities is None or item not in result.ids:
        return 1.0
    layer = result.probabilities[result.ids.index(item)]
    return float(layer[result.labels == item].mean())
