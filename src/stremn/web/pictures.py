"""Pictures for the page: masks to overlay on a frame, and the memory's templates."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

from stremn.media.frames import Picture
from stremn.media.masks import Labels, overlay
from stremn.media.palettes import vivid_table

_FILL = 77
"""Opacity of an object's fill, of 255; the frame's own colors stay seen."""

_LONGEST_SIDE = 1280
"""Of a picture of masks, in pixels; the browser stretches it over the frame."""

THUMBNAIL = 90
"""Height of a template's picture in pixels."""


def colors(item: int) -> str:
    """Return the color of an object's id as CSS writes it."""
    red, green, blue = vivid_table()[(item - 1) % 255 + 1]
    return f"#{red:02x}{green:02x}{blue:02x}"


def mask_picture(labels: Labels) -> bytes:
    """Return the objects of a label map as a transparent PNG overlay: lightly filled, outlined."""
    labels = _smaller(labels, _LONGEST_SIDE)
    ids = np.where(labels > 255, (labels - 1) % 255 + 1, labels).astype(np.uint8)
    drawn = np.zeros((*ids.shape, 4), np.uint8)
    drawn[..., :3] = vivid_table()[ids]
    drawn[..., 3] = np.where(ids > 0, _FILL, 0)
    thick = max(1, round(min(ids.shape) / 280))
    for item in np.unique(ids[ids > 0]):
        inside = cv2.inRange(ids, int(item), int(item))
        outlines, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        color = (*vivid_table()[item].tolist(), 255)
        cv2.drawContours(drawn, outlines, -1, color, thick)
    bgra = cv2.cvtColor(drawn, cv2.COLOR_RGBA2BGRA)
    return cv2.imencode(".png", bgra, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def thumbnail(frame: Picture, labels: Labels, item: int) -> bytes:
    """Return a small picture (JPEG) of a frame in which one object is colored."""
    height, width = frame.shape[:2]
    size = (max(1, round(width * THUMBNAIL / height)), THUMBNAIL)
    small: UInt8[np.ndarray, "h w 3"] = np.asarray(
        cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8
    )
    mask = cv2.resize((labels == item).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    drawn = overlay(small, mask.astype(np.uint16) * item, 0.4)
    return cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))[1].tobytes()


def _smaller(labels: Labels, longest: int) -> Labels:
    """Return a label map whose longer side is at most `longest` pixels."""
    height, width = labels.shape
    scale = longest / max(height, width)
    if scale >= 1:
        return labels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
