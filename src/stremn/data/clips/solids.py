"""Draw solid bodies: ellipsoids in perspective, with a texture, shade and exact outlines.

Camera coordinates: x right, y down, z forward, the camera at the origin. A pixel (column, row) is
the ray (column - middle, row - middle, focal), so that depth is z.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from stremn.media.frames import Picture

Vector = Float64[np.ndarray, "3"]
Rotation = Float64[np.ndarray, "3 3"]


@dataclass(frozen=True)
class Ellipsoid:
    """One part of a body in one frame.

    center: in camera coordinates, z positive. axes: half lengths. rotation: from the ellipsoid's
    own axes to the camera's.
    """

    center: Vector
    axes: Vector
    rotation: Rotation


@dataclass(frozen=True)
class Light:
    """Light of a scene: unit vector toward it, and the share of it that comes from everywhere."""

    direction: Vector
    ambient: float


class Scene:
    """A picture of solid bodies in the making; what is nearer hides what is farther.

    size: pixels of a side. focal: focal length in pixels.
    color: what was drawn; depth: z of each pixel, infinite where nothing is; ids: label of each
    pixel, 0 where nothing is.
    """

    def __init__(self, size: int, focal: float) -> None:
        self.size = size
        self.focal = focal
        self.color: UInt8[np.ndarray, "size size 3"] = np.zeros((size, size, 3), np.uint8)
        self.depth: Float32[np.ndarray, "size size"] = np.full((size, size), np.inf, np.float32)
        self.ids: UInt8[np.ndarray, "size size"] = np.zeros((size, size), np.uint8)

    @property
    def covered(self) -> Bool[np.ndarray, "size size"]:
        """Where a body is, with a label or without."""
        return np.isfinite(self.depth)

    def draw(self, part: Ellipsoid, texture: Picture, light: Light, number: int) -> None:
        """Draw `part` with the label `number`; `texture` is wrapped around it.

        A part that reaches behind the camera is not drawn.
        """
        box = self._box(part)
        if box is None:
            return
        x0, y0, x1, y1 = box
        # In coordinates where the ellipsoid is the unit sphere: |origin + depth * ray| = 1.
        to_sphere = part.rotation.T / part.axes[:, None]
        origin = -to_sphere @ part.center
        middle = (self.size - 1) / 2
        x = ((np.arange(x0, x1) - middle) / self.focal).astype(np.float32)[None]
        y = ((np.arange(y0, y1) - middle) / self.focal).astype(np.float32)[:, None]
        rows = to_sphere.astype(np.float32)
        ray = [row[0] * x + row[1] * y + row[2] for row in rows]
        squared = ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2
        along = sum(np.float32(o) * r for o, r in zip(origin, ray, strict=True))
        root = along**2 - squared * np.float32(origin @ origin - 1)
        inside = root > 0
        depth = np.where(inside, (-along - np.sqrt(np.maximum(root, 0))) / squared, np.inf)
        nearer = depth < self.depth[y0:y1, x0:x1]
        if not nearer.any():
            return
        reach = depth[nearer]
        point = np.stack(
            [np.float32(o) + reach * r[nearer] for o, r in zip(origin, ray, strict=True)]
        )
        shaded = wrapped(texture, point) * self._shade(point, part, light)[:, None]
        self.color[y0:y1, x0:x1][nearer] = np.clip(shaded, 0, 255).astype(np.uint8)
        self.depth[y0:y1, x0:x1][nearer] = reach
        self.ids[y0:y1, x0:x1][nearer] = number

    def _box(self, part: Ellipsoid) -> tuple[int, int, int, int] | None:
        """Return a rectangle of pixels that holds the part's picture, or None."""
        radius = float(part.axes.max())
        near = float(part.center[2]) - radius
        if near <= 0:
            return None
        middle = (self.size - 1) / 2
        # Every point of the ball around the part lies at depth `near` or farther.
        least = np.minimum(
            (part.center[:2] - radius) / near, (part.center[:2] - radius) / (near + 2 * radius)
        )
        most = np.maximum(
            (part.center[:2] + radius) / near, (part.center[:2] + radius) / (near + 2 * radius)
        )
        first = np.maximum(np.floor(least * self.focal + middle), 0)
        last = np.minimum(np.ceil(most * self.focal + middle) + 1, self.size)
        x0, y0, x1, y1 = int(first[0]), int(first[1]), int(last[0]), int(last[1])
        return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None

    def _shade(
        self, point: Float32[np.ndarray, "3 n"], part: Ellipsoid, light: Light
    ) -> Float32[np.ndarray, " n"]:
        """Return the brightness of points of the unit sphere by Lambert's law."""
        toward = (part.rotation.T @ light.direction).astype(np.float32)
        normal = point / part.axes.astype(np.float32)[:, None]
        normal /= np.linalg.norm(normal, axis=0)
        falling = np.maximum(toward @ normal, 0)
        return np.float32(light.ambient) + np.float32(1 - light.ambient) * falling


def wrapped(texture: Picture, point: Float32[np.ndarray, "3 n"]) -> Float32[np.ndarray, "n 3"]:
    """Return a texture's color at points of the unit sphere.

    Longitude is mirrored, so that there is no seam.
    """
    height, width = texture.shape[:2]
    turn = np.abs(np.arctan2(point[1], point[0])) / np.float32(np.pi)
    rise = np.arccos(np.clip(point[2], -1, 1)) / np.float32(np.pi)
    columns, rows = turn * np.float32(width - 1), rise * np.float32(height - 1)
    found = np.empty((point.shape[1], 3), np.uint8)
    # OpenCV's remap takes no more than 32,767 values in one row.
    for start in range(0, point.shape[1], 32_000):
        here = slice(start, start + 32_000)
        found[here] = cv2.remap(texture, columns[None, here], rows[None, here], cv2.INTER_LINEAR)[0]
    return found.astype(np.float32)


def rotation(turn: Vector) -> Rotation:
    """Return the rotation by the vector `turn`: its direction is the axis, its length radians."""
    return cv2.Rodrigues(turn)[0]
