"""Clips of rendered bodies: solid things that turn in depth and deform, over moving photos.

A cut-out shows one side for ever. Here the sides of a thing come and go, its shape changes, things
hide one another by their depth, cast shade, and have likenesses about them; the masks are exact.
The idea is that of the BL30K data set (Cheng et al., MiVOS, CVPR 2021); these bodies are made of
photos and noise, so that no models of things are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float64

from stremn.data.clips.bodies import Drawn, Lobe, Pose, Waves, draw_body, rotation
from stremn.data.clips.clip import ATTEMPTS, Clip, introduce
from stremn.data.clips.colors import ColorRange, color_matrix, flickering, recolor
from stremn.data.clips.cut_outs import StillDraw
from stremn.data.clips.layers import channels_first, render
from stremn.data.clips.still_layers import FLICKER, StillClipParameters, backdrop
from stremn.data.clips.warps import smooth_path
from stremn.data.readers.stills import StillImages
from stremn.data.shapes import Mask
from stremn.errors import StremnError
from stremn.media.frames import Picture

OTHER_COLORS = ColorRange(0.25, 0.2, 0.4, 0.08)
"""How a texture differs from the photo that it is taken from."""

TEXTURE = 128
"""Sides of a texture in pixels."""


@dataclass(frozen=True)
class RenderedClipParameters:
    """Chances and ranges of rendered clips."""

    objects: tuple[int, int] = (1, 4)
    """How many are to be followed: fewest and most."""
    others: tuple[int, int] = (0, 2)
    """How many more are background: fewest and most."""
    likeness: float = 0.5
    """Chance that one of the others, or a second object, has the shape and texture of the first."""
    lobes: tuple[int, int] = (1, 4)
    """Parts of a body: fewest and most."""
    share: tuple[float, float] = (0.08, 0.30)
    """Radius of a body, in clip sides: range it is drawn from."""
    travel: float = 0.35
    """Largest distance from the start, in clip sides."""
    turn: float = 2.0
    """Largest rotation from the start, radians about each axis."""
    nearness: float = 0.35
    """Largest change of size, natural logarithm."""
    bend: float = 0.8
    """Largest turn of a part on its hinge, radians."""
    swell: float = 0.12
    """Largest change of a radius in time, natural logarithm."""
    shade: float = 0.5
    """Chance that bodies cast shade on what is behind them."""
    photo: float = 0.7
    """Chance that a texture is a piece of a photo; else it is noise."""
    late: float = 0.3
    """Chance that an object that is not in the picture at first is given later."""
    visible: float = 0.003
    """Share of the pixels an object must have when it is given."""
    flicker: ColorRange = FLICKER
    """Change of color from frame to frame."""


class RenderedClips:
    """A clip source: rendered bodies over moving photos.

    sets: of still images, for backgrounds and textures. weights: how often each is drawn from;
    None: by their sizes.
    """

    def __init__(
        self,
        sets: Sequence[StillImages],
        weights: Sequence[float] | None = None,
        parameters: RenderedClipParameters | None = None,
    ) -> None:
        self.draw = StillDraw(sets, weights)
        self.parameters = RenderedClipParameters() if parameters is None else parameters

    def sample(self, rng: np.random.Generator, frames: int, size: int, progress: float) -> Clip:
        """Draw a clip; `progress` has no effect. Raises StremnError if no object can be seen."""
        for _ in range(ATTEMPTS):
            clip = self._attempt(rng, frames, size)
            if clip is not None:
                return clip
        raise StremnError(
            f"No usable clip in {ATTEMPTS} draws: no object covers {self.parameters.visible:.1%} "
            "of it. Make bodies larger (`share`) or `visible` smaller."
        )

    def _attempt(self, rng: np.random.Generator, frames: int, size: int) -> Clip | None:
        p = self.parameters
        count = int(rng.integers(p.objects[0], p.objects[1] + 1))
        bodies = self._bodies(rng, count + int(rng.integers(p.others[0], p.others[1] + 1)))
        paths = [_path(rng, frames, size, p) for _ in bodies]
        photo = self.draw.still(rng).image
        ground = backdrop(rng, photo, None, frames, size, StillClipParameters())
        pictures, labels = render([ground], frames, size)
        shade = rng.uniform(0.25, 0.6) if rng.random() < p.shade else 0.0
        light = _light(rng)
        for frame in range(frames):
            far_first = sorted(range(len(bodies)), key=lambda i: paths[i].depth[frame])
            for number in far_first:
                pose = paths[number].pose(frame, light)
                drawn = draw_body(bodies[number], pose, size)
                if drawn is None:
                    continue
                if shade:
                    _cast(pictures[frame], drawn, pose, shade)
                _paste(pictures[frame], labels[frame], drawn, number + 1 if number < count else 0)
        late = bool(rng.random() < p.late)
        found = introduce(labels, count, max(1, round(p.visible * size * size)), late)
        if found is None:
            return None
        pictures = flickering(rng, pictures, p.flicker)
        return Clip(channels_first(pictures), found[0], found[1])

    def _bodies(self, rng: np.random.Generator, count: int) -> list[list[Lobe]]:
        """Draw bodies; one of them may be the likeness of the first."""
        p = self.parameters
        bodies = [self._body(rng) for _ in range(count)]
        if count > 1 and rng.random() < p.likeness:
            change = color_matrix(rng, ColorRange(0.06, 0.06, 0.08, 0.01))
            alike = [replace(lobe, texture=recolor(lobe.texture, change)) for lobe in bodies[0]]
            bodies[int(rng.integers(1, count))] = alike
        return bodies

    def _body(self, rng: np.random.Generator) -> list[Lobe]:
        """Draw a trunk and what hangs on it; parts mostly share one texture."""
        p, texture = self.parameters, self._texture(rng)
        lobes = [self._lobe(rng, texture, np.zeros(3), rng.uniform(0.55, 0.9), hinge=0.0)]
        for _ in range(int(rng.integers(p.lobes[0], p.lobes[1] + 1)) - 1):
            aim = rng.normal(size=3)
            center = aim / np.linalg.norm(aim) * rng.uniform(0.5, 0.9)
            own = texture if rng.random() < 0.6 else self._texture(rng)
            hinge = float(rng.uniform(-p.bend, p.bend))
            lobes.append(self._lobe(rng, own, center, rng.uniform(0.2, 0.5), hinge=hinge))
        return lobes

    def _lobe(
        self,
        rng: np.random.Generator,
        texture: Picture,
        center: Float64[np.ndarray, " 3"],
        size: float,
        hinge: float,
    ) -> Lobe:
        return Lobe(
            center=center,
            size=size,
            stretch=np.exp(rng.uniform(-0.6, 0.4, 3)),
            shape=Waves.drawn(rng, 5, rng.uniform(1.5, 4.0)),
            bumps=float(rng.uniform(0.02, 0.25)),
            change=Waves.drawn(rng, 2, 2.5),
            swell=float(rng.uniform(0, self.parameters.swell)),
            axis=rng.normal(size=3),
            hinge=hinge,
            texture=texture,
        )

    def _texture(self, rng: np.random.Generator) -> Picture:
        """Return a piece of a photo or noise, whose left side goes on at its right."""
        if rng.random() < self.parameters.photo:
            photo = self.draw.still(rng).image
            side = max(8, round(min(photo.shape[:2]) * rng.uniform(0.2, 0.7)))
            y = int(rng.integers(photo.shape[0] - side + 1))
            x = int(rng.integers(photo.shape[1] - side + 1))
            piece = cv2.resize(
                np.ascontiguousarray(photo[y : y + side, x : x + side]),
                (TEXTURE, TEXTURE),
                interpolation=cv2.INTER_AREA,
            )
        else:
            piece = _noise(rng)
        changed = recolor(piece, color_matrix(rng, OTHER_COLORS))
        return np.ascontiguousarray(np.hstack([changed, changed[:, ::-1]]))


@dataclass(frozen=True)
class Path:
    """A body's way through a clip, by frame; `depth` says who hides whom: larger is nearer."""

    position: Float64[np.ndarray, "t 2"]
    scale: Float64[np.ndarray, " t"]
    depth: Float64[np.ndarray, " t"]
    turn: Float64[np.ndarray, "t 3"]
    bend: Float64[np.ndarray, " t"]

    def pose(self, frame: int, light: Float64[np.ndarray, " 3"]) -> Pose:
        """Return how the body lies in a frame."""
        return Pose(
            self.position[frame],
            float(self.scale[frame]),
            rotation(self.turn[frame]),
            float(self.bend[frame]),
            light,
        )


def _path(rng: np.random.Generator, frames: int, size: int, p: RenderedClipParameters) -> Path:
    """Draw a smooth way that begins in the picture; nearer is larger."""
    way = smooth_path(rng, frames, 7, 2 + frames // 4)
    moved = way - way[:1]
    nearness = p.nearness * way[:, 2]
    radius = size * float(np.exp(rng.uniform(*np.log(p.share))))
    return Path(
        position=rng.uniform(0.15, 0.85, 2) * size + p.travel * size * moved[:, :2],
        scale=radius * np.exp(nearness),
        depth=rng.normal() * 0.3 + nearness,
        turn=rng.normal(size=3) + rng.uniform(0.1, 1.0) * p.turn * moved[:, 3:6],
        bend=way[:, 6],
    )


def _light(rng: np.random.Generator) -> Float64[np.ndarray, " 3"]:
    """Draw where the light comes from: from above, on the viewer's side."""
    aim = np.array([rng.uniform(-1, 1), rng.uniform(-1, -0.1), rng.uniform(0.3, 1)])
    return aim / np.linalg.norm(aim)


def _noise(rng: np.random.Generator) -> Picture:
    """Return noise of several sizes between two or three colors."""
    height = np.zeros((TEXTURE, TEXTURE), np.float32)
    for octave in range(2, 6):
        coarse = rng.normal(size=(2**octave, 2**octave)).astype(np.float32)
        height += cv2.resize(coarse, (TEXTURE, TEXTURE), interpolation=cv2.INTER_CUBIC) / octave
    if rng.random() < 0.5:
        height = np.sin(height * np.float32(rng.uniform(2, 6)))  # bands
    height = (height - height.min()) / max(float(np.ptp(height)), 1e-6)
    colors = rng.uniform(20, 235, (3, 3))
    place = np.array([0.0, rng.uniform(0.3, 0.7), 1.0])
    mixed = [np.interp(height, place, colors[:, channel]) for channel in range(3)]
    return np.stack(mixed, axis=-1).astype(np.uint8)


def _cast(picture: Picture, drawn: Drawn, pose: Pose, strength: float) -> None:
    """Darken what is drawn so far where a body keeps the light from it."""
    size = picture.shape[0]
    solid = np.zeros((size, size), np.uint8)
    _at(solid, drawn)[:] = drawn.alpha
    offset = -pose.light[:2] * pose.scale * 0.6
    moved = cv2.warpAffine(
        solid, np.array([[1, 0, offset[0]], [0, 1, offset[1]]], np.float64), (size, size)
    )
    soft = cv2.GaussianBlur(moved, (0, 0), max(1.0, 0.15 * pose.scale))
    kept = 1 - np.float32(strength / 255) * soft.astype(np.float32)
    picture[:] = (picture * kept[..., None]).astype(np.uint8)


def _paste(picture: Picture, labels: Mask, drawn: Drawn, number: int) -> None:
    """Blend a body over the picture; it has the label `number` where it covers one half."""
    share = drawn.alpha[..., None].astype(np.float32) / 255
    region = _at(picture, drawn)
    region[:] = (drawn.picture * share + region * (1 - share)).astype(np.uint8)
    _at(labels, drawn)[drawn.alpha > 127] = number


def _at(canvas: np.ndarray, drawn: Drawn) -> np.ndarray:
    """Return the part of a canvas that a body's rectangle lies on."""
    x, y = drawn.corner
    height, width = drawn.alpha.shape
    return canvas[y : y + height, x : x + width]
