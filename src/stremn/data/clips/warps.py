"""Smooth random motion, and warps of pictures: homographies and thin plates.

Points are (x, y) in pixels, pixel centres at integers. Everything random takes a numpy generator.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64

Matrices = Float64[np.ndarray, "t 3 3"]
"""Homographies, one per frame."""


def smooth_path(
    rng: np.random.Generator, frames: int, size: int, knots: int
) -> Float64[np.ndarray, "t d"]:
    """Return `size` independent smooth curves over the frames, roughly in [-1, 1].

    Random keyframes, evenly spread, joined by a Catmull-Rom spline.
    """
    count = max(knots, 2)
    values = rng.uniform(-1, 1, (count + 2, size))
    place = np.linspace(0, count - 1, frames)
    left = np.minimum(place.astype(int), count - 2)
    x = (place - left)[:, None]
    before, start, end, after = (values[left + shift] for shift in range(4))
    return (
        start
        + 0.5 * x * (end - before)
        + 0.5 * x**2 * (2 * before - 5 * start + 4 * end - after)
        + 0.5 * x**3 * (3 * (start - end) + after - before)
    )


@dataclass(frozen=True)
class Motion:
    """How a picture lies in each frame: its `center` (a point of the picture) goes to `position`.

    scale: canvas pixels per picture pixel; angle: radians; shear: of x by y;
    tilt: perspective, in 1 / picture pixels.
    """

    position: Float64[np.ndarray, "t 2"]
    scale: Float64[np.ndarray, " t"]
    angle: Float64[np.ndarray, " t"]
    shear: Float64[np.ndarray, " t"]
    tilt: Float64[np.ndarray, "t 2"]


def motion_matrices(center: tuple[float, float], motion: Motion, flip: bool) -> Matrices:
    """Return homographies from picture to canvas pixels, one per frame; `flip` mirrors the
    picture."""
    frames = len(motion.scale)
    to_center = np.array([[1, 0, -center[0]], [0, 1, -center[1]], [0, 0, 1]], dtype=np.float64)
    if flip:
        to_center = np.diag([-1.0, 1.0, 1.0]) @ to_center
    tilt = np.tile(np.eye(3), (frames, 1, 1))
    tilt[:, 2, :2] = motion.tilt
    linear = np.tile(np.eye(3), (frames, 1, 1))
    cos, sin = np.cos(motion.angle), np.sin(motion.angle)
    linear[:, 0, 0] = motion.scale * cos
    linear[:, 0, 1] = motion.scale * (motion.shear * cos - sin)
    linear[:, 1, 0] = motion.scale * sin
    linear[:, 1, 1] = motion.scale * (motion.shear * sin + cos)
    linear[:, :2, 2] = motion.position
    return linear @ tilt @ to_center


class ThinPlate:
    """Thin-plate splines over the unit square with a fixed `side` x `side` lattice of controls.

    The displacement at any point is linear in those of the controls. So the spline is solved once,
    and bending costs one small matrix product per frame. Outside the square it is extrapolated.
    """

    def __init__(self, side: int = 3, grid: int = 17) -> None:
        controls = _lattice(side)
        count = len(controls)
        system = np.zeros((count + 3, count + 3))
        system[:count, :count] = _radial(controls, controls)
        system[:count, count:] = np.hstack([np.ones((count, 1)), controls])
        system[count:, :count] = system[:count, count:].T
        points = _lattice(grid)
        basis = np.hstack([_radial(points, controls), np.ones((len(points), 1)), points])
        self._weights = (basis @ np.linalg.inv(system))[:, :count]
        self._grid = grid
        self.controls = count

    def field(self, moves: Float64[np.ndarray, "n 2"]) -> Float32[np.ndarray, "grid grid 2"]:
        """Return displacements on a coarse grid that move control i by `moves[i]`."""
        return (self._weights @ moves).reshape(self._grid, self._grid, 2).astype(np.float32)


def _lattice(side: int) -> Float64[np.ndarray, "n 2"]:
    line = np.linspace(0, 1, side)
    x, y = np.meshgrid(line, line)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def _radial(a: Float64[np.ndarray, "n 2"], b: Float64[np.ndarray, "m 2"]) -> np.ndarray:
    squared = ((a[:, None] - b[None]) ** 2).sum(axis=2)
    return squared * np.log(np.maximum(squared, 1e-12))


@dataclass(frozen=True)
class Bend:
    """A non-rigid change of a picture: a coarse `field` of displacements, in picture pixels,
    over the rectangle `box` = (x0, y0, x1, y1) of the picture."""

    field: Float32[np.ndarray, "grid grid 2"]
    box: tuple[float, float, float, float]


_PLATE = ThinPlate()


def bends(
    rng: np.random.Generator,
    frames: int,
    box: tuple[float, float, float, float],
    strength: float,
) -> list[Bend]:
    """Return a thin-plate warp of `box` that changes smoothly; `strength` in box sides."""
    moves = smooth_path(rng, frames, 2 * _PLATE.controls, 2 + frames // 3)
    sides = np.array([box[2] - box[0], box[3] - box[1]])
    steps = moves.reshape(frames, _PLATE.controls, 2) * strength * sides
    return [Bend(_PLATE.field(step), box) for step in steps]


@dataclass(frozen=True)
class Sampling:
    """Where each pixel of a canvas rectangle looks into the picture; made once, used by
    the picture, its alpha and its masks alike, so that they stay aligned."""

    matrix: Float64[np.ndarray, "3 3"]
    size: tuple[int, int]
    maps: tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]] | None

    def take(self, image: np.ndarray, border: int) -> np.ndarray:
        """Warp uint8 `image` with linear interpolation; `border` is an OpenCV border mode."""
        if self.maps is None:
            if self.matrix[2, 0] == 0 and self.matrix[2, 1] == 0:
                return cv2.warpAffine(
                    image,
                    self.matrix[:2] / self.matrix[2, 2],
                    self.size,
                    flags=cv2.INTER_LINEAR,
                    borderMode=border,
                )
            return cv2.warpPerspective(
                image, self.matrix, self.size, flags=cv2.INTER_LINEAR, borderMode=border
            )
        return cv2.remap(image, self.maps[0], self.maps[1], cv2.INTER_LINEAR, borderMode=border)


def sampling(
    matrix: Float64[np.ndarray, "3 3"],
    rectangle: tuple[int, int, int, int],
    bend: Bend | None,
) -> Sampling:
    """Prepare the warp by `matrix` (picture -> canvas) of the canvas rectangle x0, y0,
    x1, y1."""
    x0, y0, x1, y1 = rectangle
    size = (x1 - x0, y1 - y0)
    shifted = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1]], dtype=np.float64) @ matrix
    if bend is None:
        return Sampling(shifted, size, None)
    inverse = np.linalg.inv(shifted)
    x = np.arange(size[0], dtype=np.float32)[None]
    y = np.arange(size[1], dtype=np.float32)[:, None]
    w = inverse[2, 0] * x + inverse[2, 1] * y + inverse[2, 2]
    u = ((inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]) / w).astype(np.float32)
    v = ((inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]) / w).astype(np.float32)
    grid = bend.field.shape[0] - 1
    left, top, right, bottom = bend.box
    moved = cv2.remap(
        bend.field,
        (u - np.float32(left)) * np.float32(grid / (right - left)),
        (v - np.float32(top)) * np.float32(grid / (bottom - top)),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return Sampling(shifted, size, (u + moved[..., 0], v + moved[..., 1]))


def transformed_box(
    box: tuple[float, float, float, float], matrix: Float64[np.ndarray, "3 3"]
) -> tuple[float, float, float, float]:
    """Return the rectangle around the image of a rectangle under a homography."""
    x0, y0, x1, y1 = box
    corners = matrix @ np.array([[x0, x1, x1, x0], [y0, y0, y1, y1], [1, 1, 1, 1]])
    x, y = corners[:2] / np.maximum(corners[2], 1e-6)
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())
