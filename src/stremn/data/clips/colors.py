"""Random changes of color, as affine maps of RGB."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from stremn.media.frames import Picture


@dataclass(frozen=True)
class ColorRange:
    """Largest change of each kind, drawn evenly; 0.1 means up to 10 % more or less.

    hue is in turns of the color circle; gray is the probability of no color at all.
    """

    brightness: float = 0.1
    contrast: float = 0.1
    saturation: float = 0.1
    hue: float = 0.02
    gray: float = 0.0


_LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of R, G, B in brightness (ITU-R BT.601)."""

_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


def color_matrix(rng: np.random.Generator, change: ColorRange) -> Float32[np.ndarray, "3 4"]:
    """Return a random color change as an affine map of RGB, for `recolor`."""
    brightness, contrast, saturation, hue = rng.uniform(-1, 1, 4) * (
        change.brightness,
        change.contrast,
        change.saturation,
        change.hue,
    )
    saturation = -1.0 if rng.random() < change.gray else saturation
    angle = 2 * np.pi * hue
    turn = np.array(
        [
            [1, 0, 0],
            [0, np.cos(angle), -np.sin(angle)],
            [0, np.sin(angle), np.cos(angle)],
        ]
    )
    matrix = _FROM_YIQ @ turn @ _TO_YIQ
    matrix = (1 + saturation) * matrix - saturation * np.tile(_LUMA, (3, 1))
    matrix = (1 + contrast) * (1 + brightness) * matrix
    offset = np.full((3, 1), -contrast * 127.5)
    return np.hstack([matrix, offset]).astype(np.float32)


def recolor(image: Picture, matrix: Float32[np.ndarray, "3 4"]) -> Picture:
    """Apply an affine map of RGB, values cut off at 0 and 255."""
    return cv2.transform(image, matrix)


def flickering(
    rng: np.random.Generator, frames: UInt8[np.ndarray, "t h w 3"], change: ColorRange
) -> UInt8[np.ndarray, "t h w 3"]:
    """Return small color changes from frame to frame."""
    return np.stack([recolor(frame, color_matrix(rng, change)) for frame in frames])
