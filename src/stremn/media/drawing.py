"""Draw objects over a frame: fill, outline and id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Integer, UInt8

from stremn.errors import StremnError
from stremn.media.frames import Picture
from stremn.media.masks import overlay

Drawn = UInt8[np.ndarray, "rows columns 3"]
"""A picture in the size of the overlay."""

_SEARCH = 96  # pixels of the longer side in which the place of a label is looked for


@dataclass(frozen=True)
class OverlayStyle:
    """How an overlay looks.

    Attributes:
        opacity: share of an object's color in its fill, 0..1; the object shows through the rest.
        outline: draw a line around every object.
        labels: write every object's id on it.
        scale: size of the overlay by that of the video.

    Raises:
        StremnError: an opacity outside 0..1, a scale outside 0.01..4.
    """

    opacity: float = 0.3
    outline: bool = True
    labels: bool = True
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.opacity <= 1:
            raise StremnError(
                f"The opacity of an overlay is 0 (nothing filled) to 1, got {self.opacity}."
            )

        if not 0.01 <= self.scale <= 4:
            raise StremnError(f"--scale of the overlay is from 0.01 to 4, got {self.scale}.")

    def settings(self) -> dict[str, Any]:
        """Return the options that differ from the defaults; a resumed run must have the same."""
        usual = OverlayStyle()
        return {k: v for k, v in vars(self).items() if v != getattr(usual, k)}

    def draw(self, frame: Picture, labels: Integer[np.ndarray, "h w"]) -> Drawn:
        """Return the frame with its objects drawn in; `labels` are ids of the frame's size.

        Raises:
            StremnError: frame and labels differ in size.
        """
        drawn = overlay(frame, labels, self.opacity, outline=self.outline)
        if self.labels:
            _write_ids(drawn, labels)
        return drawn if self.scale == 1 else _resized(drawn, self.scale)


def _resized(picture: Picture, scale: float) -> Drawn:
    height, width = (max(2, round(side * scale)) for side in picture.shape[:2])
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width, height), interpolation=way), np.uint8)


def _write_ids(drawn: Picture, labels: Integer[np.ndarray, "h w"]) -> None:
    """Write every id where its object is thickest, so that it lies on the object."""
    height, width = labels.shape
    reduction = max(1, -(-max(height, width) // _SEARCH))
    small = labels[::reduction, ::reduction]
    scale = max(0.4, min(height, width) / 900)
    for item in np.unique(small[small > 0]):
        inside = np.pad((small == item).astype(np.uint8), 1)
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)
        _write(drawn, str(int(item)), (int(column) * reduction, int(row) * reduction), scale)


def _write(drawn: Picture, text: str, centre: tuple[int, int], scale: float) -> None:
    """Write white text with a dark edge round `centre` (x, y), moved inside the picture."""
    font, thick = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(1.6 * scale))
    (width, height), _ = cv2.getTextSize(text, font, scale, thick)
    x = min(max(centre[0] - width // 2, 0), max(drawn.shape[1] - width, 0))
    y = min(max(centre[1] + height // 2, height), drawn.shape[0])
    for color, width_of_line in (((0, 0, 0), thick + 2), ((255, 255, 255), thick)):
        cv2.putText(drawn, text, (x, y), font, scale, color, width_of_line, cv2.LINE_AA)
