"""Layers drawn over one another, with labels that follow the pictures exactly."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from stremn.data.clips.colors import recolor
from stremn.data.clips.warps import Bend, Matrices, Sampling, sampling, transformed_box
from stremn.data.shapes import Mask, bounding_box
from stremn.media.frames import Picture
from stremn.media.mask_codes import VOID

cv2.setNumThreads(0)
"""One clip is made by one worker; OpenCV's own threads would only fight with the others."""


@dataclass(frozen=True)
class Layer:
    """Something to draw in every frame of a clip; layers are drawn from back to front.

    pictures: one for all frames, or one per frame; so alphas (0-255; None: opaque, the picture is
    continued by reflection) and ids (label of each pixel, 0 none; None: no labels).
    color: affine map of RGB (`recolor`). matrices: picture -> canvas. bends: per frame, or None.
    drawn: whether it shows at all.
    """

    pictures: Sequence[Picture]
    alphas: Sequence[Mask] | None
    ids: Sequence[Mask] | None
    color: Float32[np.ndarray, "3 4"]
    matrices: Matrices
    bends: Sequence[Bend] | None
    drawn: Bool[np.ndarray, " t"]


def _at(items: Sequence[np.ndarray], frame: int) -> np.ndarray:
    return items[frame] if len(items) > 1 else items[0]


def render(
    layers: Sequence[Layer], frames: int, size: int
) -> tuple[UInt8[np.ndarray, "t size size 3"], UInt8[np.ndarray, "t size size"]]:
    """Draw layers over one another; labels are exact where an opacity of one half counts as in.

    Outside its picture an opaque layer is reflected; mirrored objects are void there.
    """
    canvas = np.zeros((frames, size, size, 3), dtype=np.uint8)
    labels = np.zeros((frames, size, size), dtype=np.uint8)
    for frame in range(frames):
        for layer in layers:
            if not layer.drawn[frame]:
                continue
            if layer.alphas is None:
                _fill(canvas[frame], labels[frame], layer, frame)
            else:
                _paste(canvas[frame], labels[frame], layer, frame)
    return canvas, labels


def _warped_ids(ids: Mask, warp: Sampling, border: int) -> UInt8[np.ndarray, "h w"]:
    """Warp an id map: each id's mask is interpolated and holds where it is above one half."""
    numbers = np.flatnonzero(cv2.calcHist([ids], [0], None, [256], [0, 256]))
    numbers = numbers[numbers > 0]
    if len(numbers) == 1:
        mask = warp.take(np.where(ids > 0, np.uint8(255), np.uint8(0)), border)
        return np.where(mask > 127, np.uint8(numbers[0]), np.uint8(0))
    result = np.zeros((warp.size[1], warp.size[0]), dtype=np.uint8)
    for number in numbers:
        mask = warp.take(np.where(ids == number, np.uint8(255), np.uint8(0)), border)
        result[mask > 127] = number
    return result


def _fill(canvas: Picture, labels: Mask, layer: Layer, frame: int) -> None:
    """Draw an opaque layer over the whole canvas."""
    size = canvas.shape[0]
    bend = layer.bends[frame] if layer.bends is not None else None
    warp = sampling(layer.matrices[frame], (0, 0, size, size), bend)
    picture = _at(layer.pictures, frame)
    canvas[:] = recolor(warp.take(picture, cv2.BORDER_REFLECT_101), layer.color)
    labels[:] = 0
    if layer.ids is None:
        return
    ids = _at(layer.ids, frame)
    labels[:] = _warped_ids(ids, warp, cv2.BORDER_CONSTANT)
    if bend is None and _covers(picture, warp):
        return
    mirrored = warp.take((ids > 0).astype(np.uint8) * np.uint8(255), cv2.BORDER_REFLECT_101)
    labels[(mirrored > 127) & (labels == 0)] = VOID


def _covers(picture: Picture, warp: Sampling) -> bool:
    """Return whether a plain warp never looks outside its picture."""
    width, height = warp.size
    box = transformed_box((0, 0, width - 1, height - 1), np.linalg.inv(warp.matrix))
    return (
        box[0] >= 0
        and box[1] >= 0
        and box[2] <= picture.shape[1] - 1
        and box[3] <= picture.shape[0] - 1
    )


def _paste(canvas: Picture, labels: Mask, layer: Layer, frame: int) -> None:
    """Blend a cut-out over the canvas within the rectangle that it covers."""
    assert layer.alphas is not None
    size = canvas.shape[0]
    alpha = _at(layer.alphas, frame)
    box = bounding_box(alpha)
    if box is None:
        return
    bend = layer.bends[frame] if layer.bends is not None else None
    margin = 1.0 if bend is None else 1.0 + float(np.abs(bend.field).max())
    wide = (box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin)
    x0, y0, x1, y1 = transformed_box(wide, layer.matrices[frame])
    x0, y0 = max(0, int(np.floor(x0))), max(0, int(np.floor(y0)))
    x1, y1 = min(size, int(np.ceil(x1))), min(size, int(np.ceil(y1)))
    if x0 >= x1 or y0 >= y1:
        return
    warp = sampling(layer.matrices[frame], (x0, y0, x1, y1), bend)
    opacity = warp.take(alpha, cv2.BORDER_CONSTANT)
    region = canvas[y0:y1, x0:x1]
    share = opacity.astype(np.float32) / np.float32(255)
    picture = recolor(warp.take(_at(layer.pictures, frame), cv2.BORDER_REPLICATE), layer.color)
    region[:] = cv2.blendLinear(picture, np.ascontiguousarray(region), share, np.float32(1) - share)
    covered = opacity > 127
    target = labels[y0:y1, x0:x1]
    if layer.ids is None:
        target[covered] = 0
        return
    ids = _warped_ids(_at(layer.ids, frame), warp, cv2.BORDER_CONSTANT)
    target[covered] = ids[covered]


def channels_first(frames: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t 3 h w"]:
    """Return frames as a clip holds them."""
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2))
