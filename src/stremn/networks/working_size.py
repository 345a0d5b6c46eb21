"""Resize frames to the network's working size, and results back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from stremn.networks.backbones import STRIDE

LARGEST_SCALE = 2.0
"""Enlarging more than this adds cost and no detail."""

Margins = Literal["edge", "black", "mean"]
"""What the padding shows: the frame's border repeated, 0, or ImageNet's mean color, which is 0 to
a network. With "edge" it is right and below; with the others, as STM and STCN have it, half of it
is on either side."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)

Image = UInt8[np.ndarray, "height width 3"]
Layers = Float[np.ndarray, "c height width"]


@dataclass(frozen=True)
class WorkingSize:
    """A frame of height x width is resized to `inner`, then padded to `padded` (see `Margins`).

    Sides of `padded` are multiples of 16. All sizes are (height, width) in pixels.
    """

    height: int
    width: int
    inner: tuple[int, int]
    padded: tuple[int, int]
    margins: Margins = "edge"

    @classmethod
    def of(cls, height: int, width: int, size: int, margins: Margins = "edge") -> Self:
        """Resize so that the shorter side is `size`; small frames are at most doubled.

        Small objects need the doubling: at stride 16 a car of 30 pixels is two positions wide.
        """
        scale = min(LARGEST_SCALE, size / min(height, width))
        inner = (max(1, round(height * scale)), max(1, round(width * scale)))
        padded = (-(-inner[0] // STRIDE) * STRIDE, -(-inner[1] // STRIDE) * STRIDE)
        return cls(height, width, inner, padded, margins)

    @property
    def _interpolation(self) -> int:
        reduced = self.inner[0] < self.height
        return cv2.INTER_AREA if reduced else cv2.INTER_LINEAR

    @property
    def start(self) -> tuple[int, int]:
        """Rows and columns of padding above and on the left."""
        if self.margins == "edge":
            return 0, 0
        return (self.padded[0] - self.inner[0]) // 2, (self.padded[1] - self.inner[1]) // 2

    @property
    def same(self) -> bool:
        """Whether nothing is resized."""
        return self.inner == (self.height, self.width)

    def inward_image(
        self, image: UInt8[np.ndarray, "height width 3"]
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Resize a frame to the working size; the padding repeats the border.

        Other margins are painted when the frame is a tensor (`paint_margins`): a mean color is no
        whole number.
        """
        if not self.same:
            image = cv2.resize(image, self.inner[::-1], interpolation=self._interpolation)
        return self._pad(image, cv2.BORDER_REPLICATE)

    def paint_margins(self, frames: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Paint the padding of frames in [0, 1] in place, unless it repeats the border."""
        if self.margins == "edge":
            return frames
        color = frames.new_tensor(IMAGENET_MEAN if self.margins == "mean" else (0.0, 0.0, 0.0))
        self._paint(frames, color[:, None, None])
        return frames

    def empty_margins(self, probabilities: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 c h w"]:
        """Set masks to no object in black margins, in place, as STM does."""
        if self.margins == "black":
            nothing = probabilities.new_zeros(probabilities.shape[1], 1, 1)
            nothing[0] = 1
            self._paint(probabilities, nothing)
        return probabilities

    def _paint(self, x: Float[Tensor, "b c h w"], color: Float[Tensor, "c 1 1"]) -> None:
        top, left = self.start
        bottom, right = top + self.inner[0], left + self.inner[1]
        for margin in (x[:, :, :top], x[:, :, bottom:], x[..., :left], x[..., right:]):
            margin.copy_(color.expand_as(margin))

    def inward_shares(
        self, layers: Float[np.ndarray, "c height width"]
    ) -> Float[np.ndarray, "c h w"]:
        """Resize masks in [0, 1] to the working size; the padding is 0."""
        small = [
            layer
            if self.same
            else cv2.resize(layer, self.inner[::-1], interpolation=self._interpolation)
            for layer in layers
        ]
        return np.stack([self._pad(layer, cv2.BORDER_CONSTANT) for layer in small])

    def outward(self, probabilities: Float[np.ndarray, "c h w"]) -> Layers:
        """Resize probabilities back to the frame's size."""
        top, left = self.start
        inner = probabilities[:, top : top + self.inner[0], left : left + self.inner[1]]
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
        top, left = self.start
        return cv2.copyMakeBorder(image, top, below - top, left, right - left, border)
