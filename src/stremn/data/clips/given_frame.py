"""Clips made of one frame and its mask, to adapt a network to the objects that are given.

Not in the paper. As in Lucid Data Dreaming (Khoreva et al., IJCV 2019) the objects are cut out, the
hole is filled from what is around it, and objects and background move apart by random smooth
motion: thousands of true masks of what will be followed, from the one that the user gave.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float64

from stremn.data.clips.clip import Clip, first_usable, introduce
from stremn.data.clips.colors import ColorRange, color_matrix, flickering
from stremn.data.clips.layers import Layer, channels_first, render
from stremn.data.clips.still_layers import FLICKER, LAYER_COLOR, kept_inside
from stremn.data.clips.warps import Matrices, Motion, bends, motion_matrices, smooth_path
from stremn.data.shapes import Mask, bounding_box, feathered, id_counts
from stremn.errors import StremnError
from stremn.media.frames import Picture
from stremn.media.masks import Labels

SHORT_SIDE = 480
"""Larger frames are reduced to this."""

MOST_OBJECTS = 250
"""Ids that a clip can hold, less those that mean something else; the largest objects are taken."""

VISIBLE = 16
"""Pixels that an object must have in a clip's first frame."""


@dataclass(frozen=True)
class Wander:
    """Ranges of a smooth random motion.

    travel: farthest from the start, as a share of `extent`; angle: degrees; zoom: natural logarithm
    of the change of scale; shear and tilt: as `Motion` has them, the tilt over `extent`.
    """

    travel: float
    angle: float
    zoom: float
    shear: float
    tilt: float


@dataclass(frozen=True)
class GivenFrameParameters:
    """Chances and ranges of clips made of one frame.

    The wide ranges of scale are what matters: with `scale` from 0.85 to 1.4 and without growing, an
    object that comes nearer fell apart after adapting.
    """

    objects: int = 3
    """Most objects that a clip follows; the others are background there."""
    together: float = 0.35
    """Chance that the frame moves as it is, nothing cut out."""
    scale: tuple[float, float] = (0.7, 2.0)
    """Size of the frame's shorter side, in clip sides."""
    grows: float = 0.5
    """Chance that the scale changes steadily over the clip."""
    growth: float = 0.7
    """How much at most, natural logarithm, of a frame as it is."""
    background_growth: float = 0.2
    """The same of a background without its objects."""
    own_growth: float = 0.9
    """The same of an object on that."""
    camera: Wander = Wander(travel=0.12, angle=8.0, zoom=0.12, shear=0.05, tilt=0.05)
    """Of the whole picture; travel in clip sides."""
    own: Wander = Wander(travel=0.35, angle=15.0, zoom=0.2, shear=0.1, tilt=0.1)
    """Of an object that was cut out, on the picture; travel in sizes of the object."""
    mirrored: float = 0.15
    """Chance that an object that was cut out faces the other way."""
    bend: tuple[float, float] = (0.3, 0.5)
    """Chance of a thin-plate warp: of a frame as it is, of an object."""
    color: ColorRange = LAYER_COLOR
    """Change of color of the whole picture."""
    own_color: ColorRange = FLICKER
    """Change of color of an object instead of the picture's, every second time."""
    flicker: ColorRange = FLICKER
    """Change of color from frame to frame."""


class GivenFrameClips:
    """A clip source: one frame, its objects moved over a background without them.

    frame: RGB. labels: any ids, 0 is background. Raises StremnError if there is no object.
    """

    def __init__(
        self, frame: Picture, labels: Labels, parameters: GivenFrameParameters | None = None
    ) -> None:
        self.parameters = GivenFrameParameters() if parameters is None else parameters
        ids = _numbered(labels)
        reduced = SHORT_SIDE / min(ids.shape)
        if reduced < 1:
            size = (round(ids.shape[1] * reduced), round(ids.shape[0] * reduced))
            frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
            ids = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST_EXACT)
        self.frame, self.ids = frame, ids
        self.numbers = [int(number) for number in np.flatnonzero(id_counts(ids))]
        if not self.numbers:
            raise StremnError("There is nothing to adapt to: the mask of the frame is empty.")
        self.background = filled(frame, ids)

    def sample(self, rng: np.random.Generator, frames: int, size: int, progress: float) -> Clip:
        """Draw a clip; `progress` has no effect. Raises StremnError on objects too small."""
        return first_usable(
            lambda: self._attempt(rng, frames, size),
            ": the objects of the mask are too small to adapt "
            f"to ({int(np.count_nonzero(self.ids))} pixels in all).",
        )

    def _attempt(self, rng: np.random.Generator, frames: int, size: int) -> Clip | None:
        p = self.parameters
        count = int(rng.integers(1, min(p.objects, len(self.numbers)) + 1))
        followed = rng.permutation(self.numbers)[:count]
        table = np.zeros(256, dtype=np.uint8)
        table[followed] = np.arange(1, count + 1)
        together = bool(rng.random() < p.together)
        growing = np.zeros(frames)
        if rng.random() < p.grows:
            growing = rng.uniform(-1, 1) * np.linspace(0, 1, frames)
        growth = p.growth if together else p.background_growth
        camera = self._camera(rng, int(followed[0]), growing * growth, size)
        if together:
            layers = [self._whole(rng, table, camera)]
        else:
            layers = self._apart(rng, table, camera, growing * p.own_growth)
        pictures, labels = render(layers, frames, size)
        found = introduce(labels, count, VISIBLE, late=False)
        if found is None:
            return None
        return Clip(channels_first(flickering(rng, pictures, p.flicker)), *found)

    def _camera(
        self, rng: np.random.Generator, number: int, growing: Float64[np.ndarray, " t"], size: int
    ) -> Matrices:
        """Return the camera's motion from picture to canvas, centered on object `number` at
        first."""
        p = self.parameters
        height, width = self.ids.shape
        rows, columns = np.nonzero(self.ids == number)
        center = (float(columns.mean()), float(rows.mean()))
        scale = size / min(height, width) * float(np.exp(rng.uniform(*np.log(p.scale))))
        start = size / 2 + size * rng.uniform(-0.2, 0.2, 2)
        start = kept_inside(start, center, scale, width, height, size)
        path = wandering_path(rng, len(growing))
        extent = float(max(height, width))
        motion = wandering(rng, path - path[0], p.camera, start, size, extent)
        motion = replace(motion, scale=scale * motion.scale * np.exp(growing))
        return motion_matrices(center, motion, flip=bool(rng.random() < 0.5))

    def _whole(self, rng: np.random.Generator, table: np.ndarray, camera: Matrices) -> Layer:
        """Return the frame as one layer."""
        p, frames = self.parameters, len(camera)
        box = (0.0, 0.0, float(self.ids.shape[1]), float(self.ids.shape[0]))
        return Layer(
            pictures=[self.frame],
            alphas=None,
            ids=[cv2.LUT(self.ids, table)],
            color=color_matrix(rng, p.color),
            matrices=camera,
            bends=bends(rng, frames, box, 0.03) if rng.random() < p.bend[0] else None,
            drawn=always(frames),
        )

    def _apart(
        self,
        rng: np.random.Generator,
        table: np.ndarray,
        camera: Matrices,
        growing: Float64[np.ndarray, " t"],
    ) -> list[Layer]:
        """Return the background without its objects, and each object by itself, in any order."""
        color, drawn = color_matrix(rng, self.parameters.color), always(len(camera))
        layers = [Layer([self.background], None, None, color, camera, None, drawn)]
        for number in rng.permutation(self.numbers):
            mask = (self.ids == number).astype(np.uint8)
            layer = self._alone(rng, mask, camera, growing)
            if rng.random() < 0.5:
                layer = replace(layer, color=color)
            layers.append(replace(layer, ids=[mask * table[number]]))
        return layers

    def _alone(
        self,
        rng: np.random.Generator,
        mask: Mask,
        camera: Matrices,
        growing: Float64[np.ndarray, " t"],
    ) -> Layer:
        """Return a cut-out object that moves relative to the picture."""
        p, frames = self.parameters, len(camera)
        box = bounding_box(mask)
        assert box is not None  # every number is there
        center = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        extent = float(max(box[2] - box[0], box[3] - box[1]))
        path = wandering_path(rng, frames)
        if rng.random() < 0.5:  # from where it is; else from near there
            path = path - path[0]
        motion = wandering(rng, path, p.own, np.array(center), extent, extent)
        motion = replace(motion, scale=motion.scale * np.exp(growing))
        flip = bool(rng.random() < p.mirrored)
        return Layer(
            pictures=[self.frame],
            alphas=[feathered(mask)],
            ids=None,
            color=color_matrix(rng, p.own_color),
            matrices=camera @ motion_matrices(center, motion, flip),
            bends=bends(rng, frames, box, 0.06) if rng.random() < p.bend[1] else None,
            drawn=always(frames),
        )


def wandering_path(rng: np.random.Generator, frames: int) -> Float64[np.ndarray, "t 7"]:
    """Draw smooth curves for the seven numbers of a motion, roughly in [-1, 1]."""
    return smooth_path(rng, frames, 7, 2 + frames // 4)


def wandering(
    rng: np.random.Generator,
    path: Float64[np.ndarray, "t 7"],
    ranges: Wander,
    start: Float64[np.ndarray, "2"],
    unit: float,
    extent: float,
) -> Motion:
    """Return a motion from `start` along `path`, within `ranges`, more or less vigorous.

    unit: pixels that travel counts in. extent: side in pixels of what moves.
    """
    vigor = rng.uniform(0.2, 1.0)
    return Motion(
        position=start + unit * ranges.travel * vigor * path[:, :2],
        scale=np.exp(ranges.zoom * vigor * path[:, 2]),
        angle=np.deg2rad(ranges.angle) * vigor * path[:, 3],
        shear=ranges.shear * vigor * path[:, 4],
        tilt=ranges.tilt * vigor * path[:, 5:] / extent,
    )


def filled(frame: Picture, ids: Mask) -> Picture:
    """Return the frame with its objects replaced by their surroundings."""
    hole = cv2.dilate((ids > 0).astype(np.uint8), np.ones((9, 9), np.uint8))
    half = (max(1, frame.shape[1] // 2), max(1, frame.shape[0] // 2))
    small = cv2.inpaint(
        cv2.resize(frame, half, interpolation=cv2.INTER_AREA),
        cv2.resize(hole, half, interpolation=cv2.INTER_NEAREST),
        5,
        cv2.INPAINT_TELEA,
    )
    guess = cv2.resize(small, (frame.shape[1], frame.shape[0]), interpolation=cv2.INTER_CUBIC)
    share = feathered(hole).astype(np.float32) / np.float32(255)
    return cv2.blendLinear(guess, frame, share, np.float32(1) - share)


def always(frames: int) -> Bool[np.ndarray, " t"]:
    """Draw in every frame."""
    return np.ones(frames, dtype=bool)


def _numbered(labels: Labels) -> Mask:
    """Renumber ids to 1, 2, ...; keep the largest objects if a clip cannot hold all."""
    ids, place, pixels = np.unique(labels, return_inverse=True, return_counts=True)
    pixels = np.where(ids == 0, 0, pixels)
    kept = [i for i in np.argsort(-pixels, kind="stable")[:MOST_OBJECTS] if pixels[i]]
    table = np.zeros(len(ids), dtype=np.uint8)
    table[sorted(kept)] = np.arange(1, len(kept) + 1)
    return table[place].reshape(labels.shape)
