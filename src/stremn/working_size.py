"""From the frame's size to the one the network works at, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from stremn.backbones import STRIDE

LARGEST_SCALE = 2.0
"""Enlarging more than this adds cost and no detail."""

Image = UInt8[np.ndarray, "height width 3"]
Layers = Float[np.ndarray, "c height width"]


@dataclass(frozen=True)
class WorkingSize:
    """A frame of height x width is resized to `inner`, then padded right and below to `padded`.

    Sides of `padded` are multiples of 16. All sizes are (height, width) in pixels.
    """

    height: int
    width: int
    inner: tuple[int, int]
    padded: tuple[int, int]

    @classmethod
    def of(cls, height: int, width: int, short_side: int) -> Self:
        """Resize so that the shorter side is `short_side`; small frames are at most doubled.

        Small objects need the doubling: at stride 16 a car of 30 pixels is two positions wide.
        """
        scale = min(LARGEST_SCALE, short_side / min(height, width))
        inner = (max(1, round(height * scale)), max(1, round(width * scale)))
        padded = (-(-inner[0] // STRIDE) * STRIDE, -(-inner[1] // STRIDE) * STRIDE)
        return cls(height, width, inner, padded)

    @property
    def _interpolation(self) -> int:
        reduced = self.inner[0] < self.height
        return cv2.INTER_AREA if reduced else cv2.INTER_LINEAR

    @property
    def same(self) -> bool:
        """Whether nothing is resized."""
        return self.inner == (self.height, self.width)

    def inward_image(
        self, image: UInt8[np.ndarray, "height width 3"]
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Bring a frame to the working size; the padding repeats the border."""
        if not self.same:
            image = cv2.resize(image, self.inner[::-1], interpolation=self._interpolation)
        return self._pad(image, cv2.BORDER_REPLICATE)

    def inward_shares(
        self, layers: Float[np.ndarray, "c height width"]
    ) -> Float[np.ndarray, "c h w"]:
        """Bring masks in [0, 1] to the working size; the padding is 0."""
        small = [
            layer
            if self.same
            else cv2.resize(layer, self.inner[::-1], interpolation=self._interpolation)
            for layer in layers
        ]
        return np.stack([self._pad(layer, cv2.BORDER_CONSTANT) for layer in small])

    def outward(self, shares: Float[np.ndarray, "c h w"]) -> Layers:
        """Bring probabilities back to the frame's size."""
        inner = shares[:, : self.inner[0], : self.inner[1]]
        if self.same:
            return inner
        size = (self.width, self.height)
        return np.stack(
            [cv2.resize(layer, size, interpolation=cv2.INTER_LINEAR) for layer in inner]
        )

    def _pad(self, image: np.ndarray, border: int) -> np.ndarray:
        below, right = self.padded[0] - image.shape[0], self.padded[1] - image.shape[1]
        if not (below or right):
            return image
        return cv2.copyMakeBorder(image, 0, below, 0, right, border)
