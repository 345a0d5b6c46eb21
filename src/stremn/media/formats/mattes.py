"""Soft mattes: how much of each pixel belongs to an object, from its mask and probabilities."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float

from stremn.media.frame_results import FrameResult

Matte = Float[np.ndarray, "height width"]
"""0 (background) to 1 (object), float32."""

_HAZE = 0.2
"""Probabilities up to here are background, and as near to 1, object."""


def objects_matte(result: FrameResult) -> Matte:
    """Return the matte of all objects together; hard if the result has no probabilities."""
    inside = result.labels > 0
    soft = result.probabilities
    return soft_edge(inside, None if soft is None else soft.sum(axis=0))


def object_matte(result: FrameResult, item: int) -> Matte:
    """Return the matte of one object; hard if the result has no probabilities of it."""
    inside = result.labels == item
    if result.probabilities is None or item not in result.ids:
        return soft_edge(inside, None)
    return soft_edge(inside, result.probabilities[result.ids.index(item)])


def soft_edge(
    inside: Bool[np.ndarray, "height width"],
    probability: Float[np.ndarray, "height width"] | None,
) -> Matte:
    """Return a matte that follows the probability near the mask's edge, and the mask elsewhere.

    Near is within a hundredth of the shorter side. So an uncertain middle of an object does not
    shine through, and haze far from it does not show.
    """
    if probability is None or not inside.any():
        return inside.astype(np.float32)
    near = edge_width(inside.shape)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * near + 1, 2 * near + 1))
    mask = inside.astype(np.uint8)
    core, reach = cv2.erode(mask, kernel), cv2.dilate(mask, kernel)
    matte = np.clip((probability.astype(np.float32) - _HAZE) / (1 - 2 * _HAZE), 0, 1)
    matte[core > 0] = 1
    matte[reach == 0] = 0
    return matte


def edge_width(size: tuple[int, ...]) -> int:
    """Return how far from a mask's edge its matte may be soft, in pixels; `size` is in pixels."""
    return max(2, round(min(size) / 100))


def as_bytes(matte: Matte) -> np.ndarray:
    """Return the matte as uint8, 0 to 255."""
    return np.rint(matte * 255).astype(np.uint8)
