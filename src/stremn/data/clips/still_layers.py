"""Layers made of stills: cut-outs and whole pictures that move, each drawn at random."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float64, UInt8

from stremn.data.clips.colors import ColorRange, color_matrix
from stremn.data.clips.cut_outs import CutOut, StillDraw, occluder
from stremn.data.clips.layers import Layer
from stremn.data.clips.warps import Motion, bends, motion_matrices, smooth_path
from stremn.data.shapes import Mask, bounding_box
from stremn.media.frames import Picture
from stremn.media.mask_codes import VOID

LAYER_COLOR = ColorRange(0.15, 0.15, 0.2, 0.03, gray=0.05)
"""Change of color of a picture or cut-out."""

FLICKER = ColorRange(0.05, 0.05, 0.05, 0.0)
"""Change of color from frame to frame."""


@dataclass(frozen=True)
class StillClipParameters:
    """Chances and ranges of clips made of stills.

    `paste`, `distractor` and `half` are those that made a model use its memory in a trial run;
    `angle`, `zoom`, `shear`, `bend` follow the affine ranges usual for this task (rotation
    +-20 degrees, scale 0.9-1.1, shear +-10 degrees, thin-plate warps in part of the clips).
    """

    paste: float = 0.55
    """Chance to paste the object on another photo."""
    distractor: float = 0.30
    """Chance of a second object; then either one, or both, are to be segmented."""
    half: float = 0.12
    """Chance that half of an object is the target."""
    occluder: float = 0.25
    """Chance that something passes in front."""
    bend: float = 0.15
    """Chance of a thin-plate warp that changes over time."""
    share: tuple[float, float] = (0.15, 0.75)
    """Square root of object area / clip area: smallest and largest."""
    travel: tuple[float, float] = (0.02, 0.30)
    """Largest distance from the start, in clip sides: range it is drawn from."""
    angle: float = 20.0
    """Largest rotation, degrees."""
    zoom: float = 0.15
    """Largest change of scale, natural logarithm."""
    shear: float = 0.12
    """Largest shear."""
    tilt: float = 0.12
    """Largest change of scale over the object by perspective."""
    jitter: float = 0.15
    """Motion from frame to frame without memory, as a share of the smooth motion."""
    color: ColorRange = LAYER_COLOR
    """Change of color of each layer."""
    flicker: ColorRange = FLICKER
    """Change of color from frame to frame."""
    objects: int = 2
    """Most objects in a clip."""
    visible: float = 0.005
    """Share of the pixels an object must have in frame 0."""


EDGE = 0.04
"""How near the middle of a moving picture may come to the edge of the clip, in clip sides."""


def random_motion(
    rng: np.random.Generator,
    frames: int,
    start: tuple[float, float],
    scale: float,
    extent: float,
    size: int,
    p: StillClipParameters,
) -> Motion:
    """Smooth motion from `start` (canvas pixels) with jitter; `extent`: object side in pixels
    of its picture."""
    knots = 2 + frames // 4
    path = smooth_path(rng, frames, 7, knots) + p.jitter * rng.uniform(-1, 1, (frames, 7))
    travel = size * float(np.exp(rng.uniform(*np.log(p.travel))))
    vigor = rng.uniform(0.2, 1.0)
    path[:, :2] -= path[0, :2]
    position = np.array(start) + travel * path[:, :2]
    return Motion(
        # What wanders off for good teaches nothing; leaving and returning is made on purpose.
        position=np.clip(position, EDGE * size, (1 - EDGE) * size),
        scale=scale * np.exp(vigor * p.zoom * path[:, 2]),
        angle=np.deg2rad(p.angle) * vigor * path[:, 3],
        shear=p.shear * vigor * path[:, 4],
        tilt=p.tilt * vigor * path[:, 5:] / extent,
    )


def moving(
    rng: np.random.Generator, cut: CutOut, frames: int, size: int, p: StillClipParameters
) -> Layer:
    """Return a cut-out that moves over the canvas, in the picture at the start."""
    height, width = cut.alpha.shape
    area = max(1, int(np.count_nonzero(cut.alpha > 127)))
    share = float(np.exp(rng.uniform(*np.log(p.share))))
    scale = min(share * size / area**0.5, size / max(height, width), 2.5)
    image, alpha, ids, scale = reduced(cut.image, cut.alpha, cut.ids, scale)
    height, width = alpha.shape
    start = rng.uniform(0.2, 0.8, 2) * size
    motion = random_motion(rng, frames, (start[0], start[1]), scale, max(height, width), size, p)
    flip = bool(rng.random() < 0.5)
    box = (0.0, 0.0, float(width), float(height))
    return Layer(
        pictures=[image],
        alphas=[alpha],
        ids=None if ids is None else [ids],
        color=color_matrix(rng, p.color),
        matrices=motion_matrices((width / 2, height / 2), motion, flip),
        bends=bends(rng, frames, box, 0.05) if rng.random() < p.bend else None,
        drawn=np.ones(frames, dtype=bool),
    )


def reduced(
    image: Picture, alpha: Mask | None, ids: Mask | None, scale: float
) -> tuple[
    UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "h w"] | None, float
]:
    """Shrink a picture that will be drawn much smaller, so that the warp does not alias.

    Returns the picture, its opacity and ids, and the scale left to do.
    """
    opacity = np.full(image.shape[:2], 255, dtype=np.uint8) if alpha is None else alpha
    if scale > 0.67:
        return image, opacity, ids, scale
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    opacity = cv2.resize(opacity, size, interpolation=cv2.INTER_AREA)
    few = None if ids is None else cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST_EXACT)
    return small, opacity, few, scale * image.shape[1] / size[0]


def backdrop(
    rng: np.random.Generator,
    image: Picture,
    ids: Mask | None,
    frames: int,
    size: int,
    p: StillClipParameters,
) -> Layer:
    """Return a whole picture that moves; if it has labels, the crop lies around the labelled
    object."""
    height, width = image.shape[:2]
    cover = size / min(height, width)
    box = None if ids is None else bounding_box(np.where(ids == VOID, np.uint8(0), ids))
    if ids is None or box is None:
        center = (width / 2, height / 2)
        scale = cover * rng.uniform(1.0, 1.6)
        start = np.full(2, size / 2)
        extent = float(max(height, width))
    else:
        center = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        area = np.count_nonzero((ids > 0) & (ids != VOID))
        share = float(np.exp(rng.uniform(*np.log(p.share))))
        # Not smaller than nearly the whole picture, nor so large that the object leaves.
        extent = float(max(box[2] - box[0], box[3] - box[1]))
        scale = min(max(share * size / area**0.5, 0.85 * cover), 1.2 * size / extent)
        start = rng.uniform(0.3, 0.7, 2) * size
        start = kept_inside(start, center, scale, width, height, size)
    small, _, few, scale_left = reduced(image, None, ids, scale)
    factor = small.shape[1] / width
    motion = random_motion(rng, frames, (start[0], start[1]), scale_left, extent * factor, size, p)
    flip = bool(rng.random() < 0.5)
    inside = (0.0, 0.0, float(small.shape[1]), float(small.shape[0]))
    return Layer(
        pictures=[small],
        alphas=None,
        ids=None if few is None else [few],
        color=color_matrix(rng, p.color),
        matrices=motion_matrices((center[0] * factor, center[1] * factor), motion, flip),
        bends=bends(rng, frames, inside, 0.04) if rng.random() < p.bend else None,
        drawn=np.ones(frames, dtype=bool),
    )


def kept_inside(
    start: np.ndarray,
    center: tuple[float, float],
    scale: float,
    width: int,
    height: int,
    size: int,
) -> np.ndarray:
    """Move the place of `center` on the canvas so that the picture covers it where it can."""
    most = np.array(center) * scale
    least = size - (np.array([width, height]) - np.array(center)) * scale
    middle = (most + least) / 2
    return np.where(least <= most, np.clip(start, least, most), middle)


def passing(
    rng: np.random.Generator, draw: StillDraw, frames: int, size: int, p: StillClipParameters
) -> Layer:
    """Return something that crosses the canvas in front: another object, or a patch of some
    photo."""
    cut = occluder(rng, draw)
    height, width = cut.alpha.shape
    scale = size * rng.uniform(0.2, 0.6) / max(height, width)
    image, alpha, _, scale = reduced(cut.image, cut.alpha, None, scale)
    heading = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(heading), np.sin(heading)])
    speed = size * rng.uniform(0.1, 0.5)
    middle = rng.uniform(0.25, 0.75, 2) * size
    when = rng.uniform(0.5, max(0.6, frames - 0.5))
    position = middle + direction * speed * (np.arange(frames) - when)[:, None]
    angle = rng.uniform(-0.2, 0.2) * np.arange(frames) + rng.uniform(-0.5, 0.5)
    return sliding(rng, image, alpha, position, scale, angle, np.ones(frames, dtype=bool), p)


def sliding(
    rng: np.random.Generator,
    image: Picture,
    alpha: Mask,
    position: Float64[np.ndarray, "t 2"],
    scale: float,
    angle: Float64[np.ndarray, " t"],
    drawn: Bool[np.ndarray, " t"],
    p: StillClipParameters,
) -> Layer:
    """Return a cut-out without labels that goes along `position` and turns, and nothing else."""
    frames, (height, width) = len(position), alpha.shape
    motion = Motion(
        position=position,
        scale=np.full(frames, scale),
        angle=angle,
        shear=np.zeros(frames),
        tilt=np.zeros((frames, 2)),
    )
    return Layer(
        pictures=[image],
        alphas=[alpha],
        ids=None,
        color=color_matrix(rng, p.color),
        matrices=motion_matrices((width / 2, height / 2), motion, False),
        bends=None,
        drawn=drawn,
    )
