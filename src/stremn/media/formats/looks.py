"""Render a frame with its background removed, replaced or blurred."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from stremn.media.codecs import Pixels
from stremn.media.formats.mattes import Matte, as_bytes, edge_width, objects_matte
from stremn.media.frame_results import FrameResult
from stremn.media.frames import Picture


class Look(Protocol):
    """Gives the picture that is written for a frame."""

    def __call__(self, result: FrameResult) -> Pixels:
        """Return RGB or RGBA of the frame's size."""


@dataclass(frozen=True)
class CutOut:
    """The objects on a transparent background: straight RGBA, soft edges.

    Colors are kept a little beyond the edge, so that no seam shows where others blend, and are 0
    further out, which makes files small.
    """

    def __call__(self, result: FrameResult) -> Pixels:
        """Return RGBA."""
        matte = objects_matte(result)
        image = result.frame.image
        margin = 4 * edge_width(matte.shape) + 1
        near = cv2.dilate((matte > 0).astype(np.uint8), np.ones((margin, margin), np.uint8))
        return np.dstack([image * near[..., None], as_bytes(matte)])


@dataclass(frozen=True)
class PlainBackground:
    """The objects on one color (red, green, blue; 0 to 255)."""

    color: tuple[int, int, int]

    def __call__(self, result: FrameResult) -> Picture:
        """Return RGB."""
        image = result.frame.image
        background = np.empty_like(image)
        background[:] = self.color
        return _blend(image, background, objects_matte(result))


@dataclass(frozen=True)
class BlurredBackground:
    """The objects on their blurred background.

    radius: of the blur, in shares of the shorter side.
    """

    radius: float = 0.03

    def __call__(self, result: FrameResult) -> Picture:
        """Return RGB; the objects' colors do not bleed into the background."""
        image, matte = result.frame.image, objects_matte(result)
        sigma = max(1.0, self.radius * min(matte.shape))
        rest = (1 - matte)[..., None] + 1e-3  # where there is little background, some of all
        blurred = cv2.GaussianBlur(image * rest, (0, 0), sigma)
        weight = cv2.GaussianBlur(rest, (0, 0), sigma)
        return _blend(image, blurred / weight[..., None], matte)


def _blend(front: Picture, back: np.ndarray, matte: Matte) -> Picture:
    share = matte[..., None]
    return np.rint(front * share + back * (1 - share)).clip(0, 255).astype(np.uint8)
