"""Textured solid bodies that turn and deform, drawn point by point.

A body is a few lobes that hang together. A lobe is a sphere whose radius varies smoothly, stretched
along its axes; its surface is a grid of points dense enough to leave no pixel between them. Points
are (x, y, z): x and y in pixels of the canvas, z towards the viewer.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from stremn.data.shapes import Mask
from stremn.media.frames import Picture

SUPERSAMPLED = 2
"""Pixels drawn for each pixel of the canvas, along a side: edges come out soft."""

DENSITY = 1.6
"""Points of the surface for each pixel drawn, along a line on a sphere of the lobe's size."""

MOST_POINTS = 640
"""Points round a lobe, at most."""

Turn = Float64[np.ndarray, "3 3"]


@dataclass(frozen=True)
class Waves:
    """A smooth random function on the sphere: a sum of plane waves through it."""

    directions: Float64[np.ndarray, "k 3"]
    phases: Float64[np.ndarray, " k"]

    @classmethod
    def drawn(cls, rng: np.random.Generator, count: int, roughness: float) -> Waves:
        """Draw `count` waves of up to `roughness` radians over a radius."""
        aim = rng.normal(size=(count, 3))
        aim /= np.linalg.norm(aim, axis=1, keepdims=True)
        return cls(aim * rng.uniform(0.5, 1, (count, 1)) * roughness, rng.uniform(0, 6.3, count))

    def at(self, points: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
        """Return its values at points of the unit sphere, about in [-1, 1]."""
        total = np.zeros(points.shape[:2], np.float32)
        for direction, phase in zip(self.directions, self.phases, strict=True):
            total += np.cos(points @ direction.astype(np.float32) + np.float32(phase))
        return total / np.float32(max(1.0, len(self.phases) ** 0.5))


@dataclass(frozen=True)
class Lobe:
    """A part of a body.

    center: in the body, in units of the body's size. size: radius in those units.
    stretch: of its three axes. shape: its radius varies by this, times `bumps`. change: and in
    time by this, times `swell` and a factor of the frame. hinge: it turns about `center` by so
    many radians, times a factor of the frame, about `axis`.
    """

    center: Float64[np.ndarray, " 3"]
    size: float
    stretch: Float64[np.ndarray, " 3"]
    shape: Waves
    bumps: float
    change: Waves
    swell: float
    axis: Float64[np.ndarray, " 3"]
    hinge: float
    texture: Picture


@dataclass(frozen=True)
class Pose:
    """How a body lies in a frame.

    position: of its middle, in pixels. scale: pixels of a unit of its size. turn: rotation.
    bend: how far lobes turn on their hinges and swell, in [-1, 1]. light: direction it comes from.
    """

    position: Float64[np.ndarray, " 2"]
    scale: float
    turn: Turn
    bend: float
    light: Float64[np.ndarray, " 3"]


@dataclass(frozen=True)
class Drawn:
    """A body as it is seen: where its rectangle begins (x, y), its colors and its opacity."""

    corner: tuple[int, int]
    picture: Picture
    alpha: Mask


def rotation(vector: Float64[np.ndarray, " 3"]) -> Turn:
    """Return the rotation about a vector by its length in radians."""
    matrix, _ = cv2.Rodrigues(np.asarray(vector, np.float64))
    return np.asarray(matrix, np.float64)


def draw_body(lobes: list[Lobe], pose: Pose, size: int) -> Drawn | None:
    """Draw a body on a canvas of `size` x `size` pixels; None if no part of it is inside."""
    parts = [_surface(lobe, pose) for lobe in lobes]
    points = np.concatenate([part[0] for part in parts])
    colors = np.concatenate([part[1] for part in parts])
    x0, y0 = np.floor(points[:, :2].min(0)).astype(int) - 1
    x1, y1 = np.ceil(points[:, :2].max(0)).astype(int) + 2
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, size), min(y1, size)
    if x0 >= x1 or y0 >= y1:
        return None
    wide, high = (x1 - x0) * SUPERSAMPLED, (y1 - y0) * SUPERSAMPLED
    places = np.floor((points[:, :2] - (x0, y0)) * SUPERSAMPLED).astype(np.int32)
    inside = ((places >= 0) & (places < (wide, high))).all(1)
    order = _from_behind(points[inside, 2])
    columns, rows = places[inside][order].T
    picture, seen = np.zeros((high, wide, 3), np.uint8), np.zeros((high, wide), np.uint8)
    picture[rows, columns] = colors[inside][order]  # the last one written is the nearest
    seen[rows, columns] = 255
    return _reduced(picture, seen, (int(x0), int(y0)))


def _surface(lobe: Lobe, pose: Pose) -> tuple[Float32[np.ndarray, "n 3"], UInt8[np.ndarray, "n 3"]]:
    """Return the points of a lobe that face the viewer, and their colors in the light."""
    radius = pose.scale * lobe.size * float(lobe.stretch.max())
    around = int(np.clip(2 * np.pi * radius * SUPERSAMPLED * DENSITY, 24, MOST_POINTS))
    sphere = _sphere(around)
    grown = np.exp(
        lobe.bumps * lobe.shape.at(sphere) + pose.bend * lobe.swell * lobe.change.at(sphere)
    )
    local = sphere * grown[..., None] * (lobe.size * lobe.stretch).astype(np.float32)
    turned = local @ rotation(lobe.axis * lobe.hinge * pose.bend).T.astype(np.float32)
    body = turned + lobe.center.astype(np.float32)
    points = body @ (pose.scale * pose.turn).T.astype(np.float32)
    points[..., :2] += pose.position.astype(np.float32)
    normals = _normals(points)
    facing = normals[..., 2] > 0
    lit = np.clip(normals @ pose.light.astype(np.float32), 0, 1)[facing]
    texture = cv2.resize(lobe.texture, (around, sphere.shape[0]), interpolation=cv2.INTER_AREA)
    shade = 0.45 + 0.7 * lit
    colors = np.clip(texture[facing] * shade[:, None], 0, 255).astype(np.uint8)
    return points[facing], colors


def _sphere(around: int) -> Float32[np.ndarray, "h w 3"]:
    """Return points of the unit sphere, by latitude and longitude."""
    rows = max(12, around // 2)
    down = (np.arange(rows, dtype=np.float32) + 0.5) / rows * np.float32(np.pi)
    along = np.arange(around, dtype=np.float32) / around * np.float32(2 * np.pi)
    sphere = np.empty((rows, around, 3), np.float32)
    sphere[..., 0] = np.sin(down)[:, None] * np.cos(along)
    sphere[..., 1] = np.sin(down)[:, None] * np.sin(along)
    sphere[..., 2] = np.cos(down)[:, None]
    return sphere


def _normals(points: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    """Return the outward unit normals of a surface given by latitude and longitude."""
    along = np.roll(points, -1, 1) - np.roll(points, 1, 1)
    down = np.empty_like(points)
    down[1:-1] = points[2:] - points[:-2]
    down[0], down[-1] = points[1] - points[0], points[-1] - points[-2]
    normals = np.cross(down, along)
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)


def _from_behind(depth: Float32[np.ndarray, " n"]) -> np.ndarray:
    """Return the order from the farthest point to the nearest."""
    if depth.size == 0:
        return np.zeros(0, np.int64)
    low, high = float(depth.min()), float(depth.max())
    steps = ((depth - low) * (65_535 / max(high - low, 1e-6))).astype(np.uint16)
    return np.argsort(steps, kind="stable")  # a radix sort, as the numbers are short


def _reduced(
    picture: UInt8[np.ndarray, "h w 3"], seen: Mask, corner: tuple[int, int]
) -> Drawn | None:
    """Close the gaps between points, and average down to the canvas's pixels."""
    block = np.ones((3, 3), np.uint8)
    closed = cv2.morphologyEx(np.pad(seen, 2), cv2.MORPH_CLOSE, block)[2:-2, 2:-2]
    gaps: Bool[np.ndarray, "h w"] = (closed > 0) & (seen == 0)
    picture[gaps] = cv2.dilate(picture, block)[gaps]
    high, wide = seen.shape
    small = (wide // SUPERSAMPLED, high // SUPERSAMPLED)
    alpha = cv2.resize(closed, small, interpolation=cv2.INTER_AREA)
    if not (alpha > 127).any():
        return None
    mean = cv2.resize(picture.astype(np.float32), small, interpolation=cv2.INTER_AREA)
    share = np.maximum(alpha, 1)[..., None].astype(np.float32) / 255
    return Drawn(corner, np.clip(mean / share, 0, 255).astype(np.uint8), alpha)
