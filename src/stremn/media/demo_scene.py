"""The demo's clip: two balloons over a landscape, drawn by this file, with exact masks.

Everything is drawn from one seeded generator, so the clip needs no download and has no licence but
the project's. The balloons cross each other, and pass behind trees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from stremn.media.frames import Picture
from stremn.media.masks import Labels

WIDTH, HEIGHT, FRAMES, RATE = 640, 360, 120, 24
_MIDDLE = 1.1, 1.1
_SCALE = 2  # balloons are drawn this much larger and averaged, for smooth edges
_PAN = 0.5  # of the camera, in pixels a frame in the nearest layer
_LIGHT = np.array(
    [-0.48, -0.58, 0.66], np.float32
)  # unit vector towards the sun: left, up, out of the frame

Plane = Float[np.ndarray, "rows columns"]
Image = Float[np.ndarray, "height width 3"]
Layer = Float[np.ndarray, "_ _ 4"]
"""Red, green, blue and coverage, in [0, 1], of any size."""


@dataclass(frozen=True)
class _Landscape:
    """What is behind and before the balloons, wider than a frame; the sky covers everything."""

    sky: Image
    mountains: Layer
    hills: Layer
    trees: Layer


def _floats(values: object) -> Float[np.ndarray, "..."]:
    return np.asarray(values, np.float32)


@dataclass(frozen=True)
class _Balloon:
    """A balloon: how it looks, and where it is at each time in [0, 1]."""

    colors: tuple[tuple[float, float, float], ...]
    gores: int
    band: float
    start: tuple[float, float, float]
    end: tuple[float, float, float]

    def place(self, time: float) -> tuple[float, float, float]:
        """Return column, row and radius in pixels."""
        column, row, radius = (
            a + time * (b - a) for a, b in zip(self.start, self.end, strict=True)
        )
        return column, row + 5 * np.sin(7 * time + self.gores), radius

    def draw(self, time: float) -> Layer:
        """Draw it enlarged on a tight rectangle, its envelope's middle at `_MIDDLE` radii."""
        radius = self.place(time)[2] * _SCALE
        size = round(3.2 * radius), round(2.2 * radius)
        y, x = np.mgrid[: size[0], : size[1]].astype(np.float32) / radius
        x, y = x - _MIDDLE[0], y - _MIDDLE[1]
        # The envelope: half a sphere above, a cone with a round shoulder below.
        below = np.clip(y / 1.45, 0, 1)
        half = np.where(y < 0, np.sqrt(np.clip(1 - y * y, 0, 1)), 1 - below**1.9 * 0.84)
        envelope = (np.abs(x) <= half) & (y >= -1) & (y <= 1.45)
        across = np.clip(x / np.maximum(half, 1e-3), -1, 1)
        longitude = np.arcsin(across) + 0.9 * time
        gore = np.floor(longitude * self.gores / np.pi).astype(int) % len(self.colors)
        color = _floats(self.colors)[gore]
        if self.band:
            zone = np.abs(y - 0.15) < self.band
            color[zone] = _floats(self.colors)[(gore[zone] + 1) % len(self.colors)]
        seam = np.abs((longitude * self.gores / np.pi) % 1 - 0.5) * 2
        out = np.sqrt(np.clip(1 - across**2, 0, 1))
        lit = across * _LIGHT[0] + np.clip(y, -1, 1) * _LIGHT[1] + out * _LIGHT[2]
        shade = 0.42 + 0.62 * np.clip(lit, 0, 1) - 0.10 * (seam > 0.93)
        basket = (np.abs(x) < 0.24) & (y > 1.5) & (y < 1.85)
        skirt = (np.abs(x) < 0.17) & (y > 1.4) & (y <= 1.5)
        layer = np.zeros((*size, 4), np.float32)
        layer[envelope, :3] = (color * shade[..., None])[envelope]
        layer[basket, :3] = 0.7 * _floats(self.colors[0])
        layer[basket & (y < 1.57), :3] = 0.8 * _floats(self.colors[1])
        layer[skirt, :3] = 0.6 * _floats(self.colors[0])
        layer[..., 3] = envelope | basket | skirt
        return layer


_BALLOONS = (
    _Balloon(((0.86, 0.13, 0.10), (0.98, 0.76, 0.16)), 9, 0.0, (150, 112, 50), (470, 132, 66)),
    _Balloon(((0.12, 0.32, 0.72), (0.90, 0.42, 0.70)), 7, 0.22, (500, 92, 54), (196, 84, 56)),
)  # the first is nearer


def draw_demo(frames: int = FRAMES) -> Iterator[tuple[Picture, Labels]]:
    """Draw the first `frames` frames of the clip, each with the ids of its two balloons.

    Yields:
        `height width 3` RGB of uint8, and `height width` ids: 1 red and yellow, 2 blue and pink.
    """
    random = np.random.default_rng(3)
    landscape = _landscape(random)
    for index in range(frames):
        yield _frame(index, landscape, np.random.default_rng((3, index)))


def _frame(
    index: int, landscape: _Landscape, random: np.random.Generator
) -> tuple[Picture, Labels]:
    time = index / (FRAMES - 1)
    image = _shifted(landscape.sky, 0.12 * _PAN * index)
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for land, speed in ((landscape.mountains, 0.25), (landscape.hills, 0.5)):
        _draw_land(image, land, speed * _PAN * index)
    for identity in (2, 1):  # the far one first
        row, column, drawn = _placed(_BALLOONS[identity - 1], time)
        covered = (slice(row, row + len(drawn)), slice(column, column + drawn.shape[1]))
        image[covered] = _over(image[covered], drawn)
        labels[covered][drawn[..., 3] > 0.5] = identity
    near = _draw_land(image, landscape.trees, _PAN * index)
    labels[-len(near) :][near > 0.5] = 0
    image *= _VIGNETTE
    image += 0.012 * random.standard_normal(image.shape, np.float32)
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8), labels


def _placed(balloon: _Balloon, time: float) -> tuple[int, int, Layer]:
    """Return the row and column of a balloon's rectangle in the frame, and its picture there."""
    column, row, radius = balloon.place(time)
    drawn = balloon.draw(time)
    factor = 1 / _SCALE
    small = _floats(cv2.resize(drawn, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))
    small[..., :3] /= np.maximum(small[..., 3:], 1e-3)
    left, top = column - _MIDDLE[0] * radius, row - _MIDDLE[1] * radius
    move = _floats([[1, 0, left % 1], [0, 1, top % 1]])
    size = (small.shape[1] + 1, small.shape[0] + 1)
    return int(top), int(left), np.asarray(cv2.warpAffine(small, move, size), np.float32)


def _draw_land(image: Image, land: Layer, pixels: float) -> Plane:
    """Draw land at the foot of the frame, after the camera has moved right; return its coverage."""
    seen = _shifted(land, pixels)
    foot = image[-len(land) :]
    foot[...] = _over(foot, seen)
    return seen[..., 3]


def _over(image: Image, layer: Layer) -> Image:
    cover = layer[..., 3:]
    return image * (1 - cover) + layer[..., :3] * cover


def _shifted(wide: Float[np.ndarray, "h wide c"], pixels: float) -> Float[np.ndarray, "h width c"]:
    """Return the part of a wide picture that the camera sees after moving right."""
    move = _floats([[1, 0, -pixels], [0, 1, 0]])
    return np.asarray(cv2.warpAffine(wide, move, (WIDTH, len(wide))), np.float32)


def _vignette() -> Float[np.ndarray, "height width 1"]:
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    return (1 - 0.16 * (x * x + y * y))[..., None].astype(np.float32)


_VIGNETTE = _vignette()


# ---------------------------------------------------------------- the landscape


def _noise(
    random: np.random.Generator, size: tuple[int, int], cell: float, octaves: int = 5
) -> Plane:
    """Return fractal noise in [0, 1], of a largest structure of `cell` pixels."""
    height, width = size
    total = np.zeros(size, np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave, 1.0)
        grid = random.random((int(height / step) + 3, int(width / step) + 3), np.float32)
        fine = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        total += fine * 0.5**octave
    low, high = total.min(), total.max()
    return (total - low) / (high - low)


def _ridge(
    random: np.random.Generator, width: int, level: float, rise: float, cell: float
) -> Float[np.ndarray, " width"]:
    """Return for each column the row at which land begins."""
    return level - rise * _noise(random, (1, width), cell, 6)[0]


def _land(
    random: np.random.Generator,
    width: int,
    ridge: np.ndarray,
    dark: tuple[float, float, float],
    light: tuple[float, float, float],
    cell: float,
) -> Layer:
    """Return land below a ridge, its relief lit from the left."""
    relief = _noise(random, (HEIGHT, width), cell, 6)
    slope = cv2.Sobel(relief, cv2.CV_32F, 1, 1, ksize=3) + cv2.Sobel(relief, cv2.CV_32F, 1, 0)
    tone = np.clip(
        0.5 + 2.2 * slope + 0.5 * (_noise(random, (HEIGHT, width), 3 * cell) - 0.5), 0, 1
    )
    layer = np.empty((HEIGHT, width, 4), np.float32)
    layer[..., :3] = _floats(dark) + tone[..., None] * (_floats(light) - _floats(dark))
    layer[..., 3] = np.clip(np.arange(HEIGHT)[:, None] - ridge[None], 0, 1)
    return layer


def _landscape(random: np.random.Generator) -> _Landscape:
    width = WIDTH + round(_PAN * FRAMES) + 2
    down = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None, None]
    sky = _floats([0.26, 0.47, 0.78]) * (1 - down) + _floats([0.86, 0.89, 0.92]) * down
    clouds = np.clip(2.6 * _noise(random, (HEIGHT, width), 150, 7) - 1.25, 0, 1)[..., None]
    puff = 0.80 + 0.2 * _noise(random, (HEIGHT, width), 60)[..., None]
    sky = sky * (1 - 0.85 * clouds) + puff * 0.85 * clouds
    mountains = _land(
        random,
        width,
        _ridge(random, width, 285, 95, 240),
        (0.36, 0.43, 0.53),
        (0.63, 0.67, 0.72),
        40,
    )
    hills = _land(
        random,
        width,
        _ridge(random, width, 322, 62, 330),
        (0.13, 0.22, 0.09),
        (0.45, 0.50, 0.23),
        26,
    )
    _plant(random, hills, 260, (4, 9))
    trees = np.zeros((HEIGHT, width, 4), np.float32)
    for column, height in ((335, 205), (376, 105), (296, 98), (610, 120), (655, 165), (24, 110)):
        _conifer(random, trees, column, HEIGHT + 6, height)
    ground = _land(
        random,
        width,
        _ridge(random, width, 350, 14, 200),
        (0.07, 0.11, 0.05),
        (0.22, 0.27, 0.11),
        12,
    )
    trees = np.dstack([_over(trees[..., :3], ground), np.maximum(trees, ground)[..., 3:]])
    return _Landscape(sky, *(_trimmed(land) for land in (mountains, hills, trees)))


def _trimmed(land: Layer) -> Layer:
    """Leave out the rows at the top that hold nothing."""
    return land[int(np.argmax(land[..., 3].any(1))) :]


def _plant(random: np.random.Generator, land: Layer, count: int, sizes: tuple[int, int]) -> None:
    """Put small round trees with shadows on the land."""
    width = land.shape[1]
    for row in np.sort(random.integers(HEIGHT // 2, HEIGHT - 5, count)):
        column, radius = int(random.integers(0, width)), int(random.integers(*sizes))
        if land[row - radius, column, 3] < 1:
            continue
        bright = 0.8 + 0.5 * random.random()
        center = (column, int(row))
        shadow, crown = (column + radius, int(row) + radius // 2), radius // 2
        cv2.ellipse(land, shadow, (radius, crown), 0, 0, 360, _green(0.6 * bright), -1, cv2.LINE_AA)
        cv2.circle(land, center, radius, _green(bright), -1, cv2.LINE_AA)
        lit = (column - radius // 3, int(row) - radius // 3)
        cv2.circle(land, lit, crown, _green(1.7 * bright), -1, cv2.LINE_AA)


def _green(bright: float) -> tuple[float, float, float, float]:
    return 0.10 * bright, 0.19 * bright, 0.07 * bright, 1.0


def _conifer(
    random: np.random.Generator, layer: Layer, column: int, foot: int, height: int
) -> None:
    """Draw a conifer of short strokes, darker to the right."""
    cv2.line(layer, (column, foot), (column, foot - height), (0.16, 0.11, 0.07, 1), 3, cv2.LINE_AA)
    for _ in range(height * 14):
        up = random.random() ** 1.4
        sway = (1 - up) * height * 0.2 * (0.65 + 0.35 * np.sin(up * 60))
        side = random.uniform(-1, 1)
        x, y = column + side * sway, foot - 18 - up * (height - 18)
        tone = (0.5 + 0.9 * random.random()) * (1.25 - 0.45 * side)
        color = (0.08 * tone, 0.155 * tone, 0.065 * tone, 1)
        end = (round(x + 5 * side), round(y + 4))
        cv2.line(layer, (round(x), round(y)), end, color, 1, cv2.LINE_AA)
