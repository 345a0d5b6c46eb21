"""Fit frames of a video to a predictor's size, and back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from stremn.prediction.config import PredictionConfig


@dataclass(frozen=True)
class FrameFit:
    """Sizes (height, width) of one video's frames.

    Attributes:
        shown: what predictions are returned at.
        padded: what the network works at: `shown`, filled up to multiples of the feature stride.
    """

    shown: tuple[int, int]
    padded: tuple[int, int]

    def fit(
        self, picture: Float[np.ndarray, "height width c"]
    ) -> Float[Tensor, "c padded_height padded_width"]:
        """Resize a frame to `shown`, and repeat its edge up to `padded`."""
        if picture.shape[:2] != self.shown:
            # First shrink, then enlarge: OpenCV averages only where neither side grows.
            least = tuple(min(a, b) for a, b in zip(picture.shape, self.shown, strict=False))
            resized = cv2.resize(picture, least[::-1], interpolation=cv2.INTER_AREA)
            resized = cv2.resize(resized, self.shown[::-1], interpolation=cv2.INTER_LINEAR)
            # Rounding can lift an average of white pixels above 1.
            picture = resized.reshape(*self.shown, picture.shape[2]).clip(0, 1)
        frame = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
        below, beside = (p - s for p, s in zip(self.padded, self.shown, strict=True))
        if not (below or beside):
            return frame
        return F.pad(frame[None], (0, beside, 0, below), mode="replicate")[0]

    def crop(
        self, frames: Float[Tensor, "n c padded_height padded_width"]
    ) -> Float[Tensor, "n c height width"]:
        """Remove the padding."""
        return frames[..., : self.shown[0], : self.shown[1]]


def fit_of(config: PredictionConfig, shape: tuple[int, int], side: int | None) -> FrameFit:
    """Return how frames of `shape` (height, width) are fitted to a predictor.

    Args:
        config: of the predictor. One without `any_size` has one square size.
        shape: of the video's frames.
        side: shorter side, at most, of a predictor of any size; None keeps the frames' own.
    """
    if not config.any_size:
        square = (config.size, config.size)
        return FrameFit(square, square)
    scale = 1.0 if side is None else min(1.0, side / min(shape))
    height, width = (max(1, round(n * scale)) for n in shape)
    step = config.feature_stride
    up = max(-(-height // step) * step, step), max(-(-width // step) * step, step)
    return FrameFit((height, width), up)
