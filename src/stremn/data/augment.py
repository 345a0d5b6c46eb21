"""Pure functions that change pictures: colours, smooth random motion, warps, cut-outs.

Pictures are uint8 "height width 3" RGB, masks uint8 "height width". Points are (x, y) in pixels,
pixel centres at integers. Everything random takes a numpy generator.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, UInt8

from stremn.media.frames import Picture

cv2.setNumThreads(0)
"""One clip is made by one worker; OpenCV's own threads would only fight with the others."""

Mask = UInt8[np.ndarray, "height width"]
Matrices = Float64[np.ndarray, "t 3 3"]


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
    """A random color change as an affine map of RGB, for `recolor`."""
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


def smooth_path(
    rng: np.random.Generator, frames: int, size: int, knots: int
) -> Float64[np.ndarray, "t d"]:
    """`size` independent smooth curves over the frames, roughly in [-1, 1].

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
    """Homographies from picture to canvas pixels, one a frame; `flip` mirrors the picture."""
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

    The displacement at any point is linear in those of the controls, so the spline is solved
    once and bending costs one small matrix product a frame. Outside the square it goes on.
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
        """Displacements on a coarse grid over the square that move control i by `moves[i]`."""
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
    """Prepare the warp by `matrix` (picture -> canvas) of the canvas rectangle x0, y0, x1, y1."""
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


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """Smallest rectangle x0, y0, x1, y1 (ends excluded) round the pixels that are not 0."""
    x, y, width, height = cv2.boundingRect(mask)
    return (x, y, x + width, y + height) if width and height else None


def transformed_box(
    box: tuple[float, float, float, float], matrix: Float64[np.ndarray, "3 3"]
) -> tuple[float, float, float, float]:
    """Rectangle round the image of a rectangle under a homography."""
    x0, y0, x1, y1 = box
    corners = matrix @ np.array([[x0, x1, x1, x0], [y0, y0, y1, y1], [1, 1, 1, 1]])
    x, y = corners[:2] / np.maximum(corners[2], 1e-6)
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def touches_border(mask: np.ndarray, share: float = 0.25) -> bool:
    """Whether the object is cut off by the edge of its picture along `share` of its box."""
    box = bounding_box(mask)
    if box is None:
        return True
    width, height = box[2] - box[0], box[3] - box[1]
    ends = ((mask[0], width), (mask[-1], width), (mask[:, 0], height), (mask[:, -1], height))
    return any(np.count_nonzero(line) > share * length for line, length in ends)


def id_counts(ids: Mask) -> Float32[np.ndarray, "256"]:
    """Pixels of each id; background (0) and void (255) count as none."""
    counts = cv2.calcHist([ids], [0], None, [256], [0, 256]).ravel()
    counts[[0, 255]] = 0
    return counts


def middle_of(mask: Mask) -> tuple[float, float] | None:
    """Mean place (x, y) of the pixels that are not 0, of every second row and column."""
    moments = cv2.moments(mask[::2, ::2], binaryImage=True)
    area = moments["m00"]
    return (2 * moments["m10"] / area, 2 * moments["m01"] / area) if area else None


def half_plane(rng: np.random.Generator, mask: Mask) -> Mask:
    """1 on one side of a random line through the middle of the pixels that are not 0."""
    moments = cv2.moments(mask, binaryImage=True)
    middle = (moments["m10"] / moments["m00"], moments["m01"] / moments["m00"])
    angle = rng.uniform(0, 2 * np.pi)
    x = np.arange(mask.shape[1])[None] - middle[0]
    y = np.arange(mask.shape[0])[:, None] - middle[1]
    return (np.cos(angle) * x + np.sin(angle) * y > 0).astype(np.uint8)


def feathered(mask: Mask) -> Mask:
    """An object mask (0 or 1) as opacity 0-255 with an edge about two pixels wide."""
    return cv2.GaussianBlur(mask * np.uint8(255), (3, 3), 0)


def blob(rng: np.random.Generator, side: int) -> Mask:
    """A random shape, 0 or 1, in a `side` x `side` square: a bar or a rounded star-like patch."""
    mask = np.zeros((side, side), dtype=np.uint8)
    if rng.random() < 0.4:
        width = int(side * rng.uniform(0.15, 0.5))
        start = (side - width) // 2
        mask[:, start : start + width] = 1
        return mask
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    waves = rng.normal(0, 1, (4, 2)) / np.arange(2, 6)[:, None]
    order = np.arange(1, 5)[:, None] * angles
    radius = 1 + 0.45 * (waves[:, :1] * np.sin(order) + waves[:, 1:] * np.cos(order)).sum(axis=0)
    radius = np.clip(radius, 0.25, None)
    radius *= 0.48 * side / radius.max()
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius[:, None] + side / 2
    cv2.fillPoly(mask, [points.astype(np.int32)], 1)
    return mask


def shrunk_to(
    longest: int, image: Picture, mask: Mask
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """Reduce a picture and its id map so that no side exceeds `longest` pixels."""
    height, width = mask.shape
    factor = longest / max(height, width)
    if factor >= 1:
        return image, mask
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return (
        cv2.resize(image, size, interpolation=cv2.INTER_AREA),
        cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT),
    )


@dataclass(frozen=True)
class Layer:
    """Something to draw in every frame of a clip; layers are drawn from back to front.

    pictures: one for all frames, or one a frame; so alphas (0-255; None: opaque, the picture is
    continued by reflection) and ids (label of each pixel, 0 none; None: no labels).
    color: affine map of RGB (`recolor`). matrices: picture -> canvas. bends: one a frame, or None.
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

    Outside its picture an opaque layer is reflected; mirrored objects are void (255) there.
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
    labels[(mirrored > 127) & (labels == 0)] = 255


def _covers(picture: Picture, warp: Sampling) -> bool:
    """Whether a plain warp never looks outside its picture."""
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
    """Frames as a clip holds them."""
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2))


def steady(frames: int, value: float) -> Float[np.ndarray, " t"]:
    """The same value in every frame."""
    return np.full(frames, value, dtype=np.float64)
