"""Clips made of still images with masks (Sec 4.1.1: pre-training on still images).

A picture is moved by random smooth motion. Alone it can be solved by finding what is salient,
which teaches a memory nothing; so in many clips the object is pasted on another photo, has a
rival, or is only half of what stands out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from stremn.data.augment import (
    Bend,
    ColorRange,
    Layer,
    Mask,
    Motion,
    ThinPlate,
    blob,
    bounding_box,
    channels_first,
    color_matrix,
    feathered,
    half_plane,
    id_counts,
    motion_matrices,
    recolor,
    render,
    smooth_path,
    steady,
    touches_border,
)
from stremn.data.clips import VOID, Clip, introduce
from stremn.data.still_sets import Still, StillImages
from stremn.errors import StremnError
from stremn.media.frames import Picture

LAYER_COLOR = ColorRange(0.15, 0.15, 0.2, 0.03, gray=0.05)
"""Change of color of a picture or cut-out."""

FLICKER = ColorRange(0.05, 0.05, 0.05, 0.0)
"""Change of color from frame to frame."""


@dataclass(frozen=True)
class StillClipParameters:
    """Chances and ranges of clips made of stills.

    `paste`, `rival` and `half` are those that cured a memory that was ignored in a trial run;
    `angle`, `zoom`, `shear`, `bend` follow the affine ranges usual for this task (rotation
    +-20 degrees, scale 0.9-1.1, shear +-10 degrees, thin-plate warps in part of the clips).
    """

    paste: float = 0.55
    """Chance to paste the object on another photo."""
    rival: float = 0.30
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


ATTEMPTS = 20
"""Draws of a clip before its data is called unusable; one in fifty draws or fewer fails."""


class StillImageClips:
    """A clip source: stills moved by random smooth affine and perspective motion.

    sets: of still images. weights: how often each is drawn from; None: by their sizes.
    """

    def __init__(
        self,
        sets: Sequence[StillImages],
        weights: Sequence[float] | None = None,
        parameters: StillClipParameters | None = None,
    ) -> None:
        self.draw = StillDraw(sets, weights)
        self.parameters = StillClipParameters() if parameters is None else parameters

    def sample(self, rng: np.random.Generator, frames: int, size: int, progress: float) -> Clip:
        """Draw a clip; `progress` has no effect. Raises StremnError if no picture will do."""
        for _ in range(ATTEMPTS):
            clip = self._attempt(rng, frames, size)
            if clip is not None:
                return clip
        raise StremnError(
            f"No usable clip in {ATTEMPTS} draws; the masks may be empty or too small "
            f"(an object needs {self.parameters.visible:.1%} of the clip). "
            "check_stills lists what is wrong with a folder."
        )

    def _attempt(self, rng: np.random.Generator, frames: int, size: int) -> Clip | None:
        p = self.parameters
        first = self.draw.still(rng)
        paste = rng.random() < p.paste
        rival = rng.random() < p.rival
        half = rng.random() < p.half
        if paste:
            cut = self.draw.cut_out(rng, first)
            if cut is None:
                return None
            back = self.draw.still(rng)
            layers = [
                backdrop(rng, back.image, None, frames, size, p),
                moving(rng, cut.marked(rng, 1, half), frames, size, p),
            ]
            count = 1
        else:
            ids, count = self.draw.targets(rng, first, p.objects - int(rival), half)
            if count == 0:
                return None
            layers = [backdrop(rng, first.image, ids, frames, size, p)]
        if rival:
            other = self.draw.cut_out(rng, self.draw.still(rng))
            if other is not None:
                count += 1
                layers.append(moving(rng, other.marked(rng, count, False), frames, size, p))
                if paste and rng.random() < 0.5:
                    layers[-2:] = layers[:-3:-1]
        if rng.random() < p.occluder:
            layers.append(passing(rng, self.draw, frames, size, p))
        pictures, labels = render(layers, frames, size)
        if rival and count > 1:
            labels = _chosen(rng, labels, count)
        found = introduce(labels, count, round(p.visible * size * size), late=False)
        if found is None:
            return None
        pictures = flickering(rng, pictures, p.flicker)
        return Clip(channels_first(pictures), found[0], found[1])


def _chosen(
    rng: np.random.Generator, labels: UInt8[np.ndarray, "t h w"], count: int
) -> UInt8[np.ndarray, "t h w"]:
    """Of several objects keep one (the rest turns to background) or all, evenly."""
    if rng.random() < 0.5:
        return labels
    keep = int(rng.integers(1, count + 1))
    table = np.zeros(256, dtype=np.uint8)
    table[keep], table[VOID] = keep, VOID
    return table[labels]


def flickering(
    rng: np.random.Generator, frames: UInt8[np.ndarray, "t h w 3"], change: ColorRange
) -> UInt8[np.ndarray, "t h w 3"]:
    """Small color changes from frame to frame."""
    return np.stack([recolor(frame, color_matrix(rng, change)) for frame in frames])


@dataclass(frozen=True)
class CutOut:
    """An object cut out of its picture: opacity 0-255, and the id map of what it consists of."""

    image: Picture
    alpha: Mask
    ids: Mask | None

    def marked(self, rng: np.random.Generator, number: int, half: bool) -> "CutOut":
        """The same object with the label `number`, on all of it, a part or a half."""
        ids = np.full_like(self.alpha, number)
        if self.ids is not None:
            parts = _areas(self.ids)
            part = parts[rng.choice(len(parts))]
            ids = np.where(self.ids == part, ids, np.uint8(0))
        elif half:
            ids *= half_plane(rng, self.alpha)
        return CutOut(self.image, self.alpha, ids)


def _areas(ids: Mask, least: float = 0.0) -> list[int]:
    """Ids (neither 0 nor void) that cover more than `least` of the map."""
    counts = id_counts(ids)
    return [int(number) for number in np.flatnonzero(counts > least * ids.size)]


SMALLEST_OBJECT = 0.01
"""Share of its picture that an object must cover to be used: smaller ones are only blur."""


class StillDraw:
    """Draws stills and cut-outs from several sets."""

    def __init__(self, sets: Sequence[StillImages], weights: Sequence[float] | None) -> None:
        chosen = [float(len(part)) for part in sets] if weights is None else list(weights)
        if not sets or len(chosen) != len(sets) or min(chosen) < 0 or sum(chosen) <= 0:
            raise StremnError(
                f"Still-image clips need at least one set and a weight for each; "
                f"got {len(sets)} sets and weights {chosen}."
            )
        self._sets = list(sets)
        self._shares = np.array(chosen) / sum(chosen)

    def any_set(self, rng: np.random.Generator) -> int:
        """Number of a set, drawn by the weights."""
        return int(rng.choice(len(self._sets), p=self._shares))

    def still(self, rng: np.random.Generator, number: int | None = None) -> Still:
        """Any still, of the set `number` if that is given."""
        part = self._sets[self.any_set(rng) if number is None else number]
        return part.load(int(rng.integers(len(part))))

    def targets(
        self, rng: np.random.Generator, still: Still, most: int, half: bool
    ) -> tuple[Mask, int]:
        """Choose up to `most` objects of a still: id map with labels 1.., and how many."""
        numbers = _areas(still.ids, SMALLEST_OBJECT)
        if not numbers:
            return still.ids, 0
        count = int(rng.integers(1, max(1, min(most, len(numbers))) + 1))
        chosen = rng.permutation(numbers)[:count]
        table = np.zeros(256, dtype=np.uint8)
        table[chosen] = np.arange(1, count + 1)
        table[VOID] = VOID
        ids = cv2.LUT(still.ids, table)
        if half and count == 1:
            ids[(half_plane(rng, (ids == 1).astype(np.uint8)) == 0) & (ids == 1)] = 0
        return ids, count

    def cut_out(self, rng: np.random.Generator, still: Still) -> CutOut | None:
        """Cut an object out of a still; None if it has none that lies whole in the picture.

        An object cut by the picture's edge would have a straight side in the clip.
        """
        numbers = _areas(still.ids, SMALLEST_OBJECT)
        if not numbers:
            return None
        if still.kind == "instances":
            mask = still.ids == rng.choice(numbers)
        else:
            mask = (still.ids > 0) & (still.ids != VOID)
        whole = mask.astype(np.uint8)
        box = bounding_box(whole)
        if box is None or touches_border(whole):
            return None
        margin = 4
        rows = slice(max(0, box[1] - margin), box[3] + margin)
        columns = slice(max(0, box[0] - margin), box[2] + margin)
        parts = np.ascontiguousarray(still.ids[rows, columns]) if still.kind == "parts" else None
        return CutOut(
            np.ascontiguousarray(still.image[rows, columns]),
            feathered(np.ascontiguousarray(whole[rows, columns])),
            parts,
        )

    def whole_cut_out(self, rng: np.random.Generator, number: int | None = None) -> CutOut:
        """A cut-out of any still that has one, of the set `number` if that is given.

        Raises StremnError if none is found.
        """
        for _ in range(10 * ATTEMPTS):
            found = self.cut_out(rng, self.still(rng, number))
            if found is not None:
                return found
        raise StremnError("The still images hold no object that lies whole in its picture.")


_PLATE = ThinPlate()


def bends(
    rng: np.random.Generator,
    frames: int,
    box: tuple[float, float, float, float],
    strength: float,
) -> list[Bend]:
    """A thin-plate warp of `box` that changes smoothly; `strength` in box sides."""
    moves = smooth_path(rng, frames, 2 * _PLATE.controls, 2 + frames // 3)
    sides = np.array([box[2] - box[0], box[3] - box[1]])
    steps = moves.reshape(frames, _PLATE.controls, 2) * strength * sides
    return [Bend(_PLATE.field(step), box) for step in steps]


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
    reach = size * float(np.exp(rng.uniform(*np.log(p.travel))))
    vigor = rng.uniform(0.2, 1.0)
    path[:, :2] -= path[0, :2]
    position = np.array(start) + reach * path[:, :2]
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
    """A cut-out that moves over the canvas, in the picture at the start."""
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
    """A whole picture that moves; if it has labels, the crop lies round the labelled object."""
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
        start = _kept_inside(start, center, scale, width, height, size)
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


def _kept_inside(
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
    """Something that crosses the canvas in front: another object, or a patch of some photo."""
    cut = occluder(rng, draw)
    height, width = cut.alpha.shape
    scale = size * rng.uniform(0.2, 0.6) / max(height, width)
    image, alpha, _, scale = reduced(cut.image, cut.alpha, None, scale)
    height, width = alpha.shape
    heading = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(heading), np.sin(heading)])
    speed = size * rng.uniform(0.1, 0.5)
    middle = rng.uniform(0.25, 0.75, 2) * size
    when = rng.uniform(0.5, max(0.6, frames - 0.5))
    position = middle + direction * speed * (np.arange(frames) - when)[:, None]
    still = steady(frames, 0.0)
    motion = Motion(
        position=position,
        scale=steady(frames, scale),
        angle=rng.uniform(-0.2, 0.2) * np.arange(frames) + rng.uniform(-0.5, 0.5),
        shear=still,
        tilt=np.zeros((frames, 2)),
    )
    return Layer(
        pictures=[image],
        alphas=[alpha],
        ids=None,
        color=color_matrix(rng, p.color),
        matrices=motion_matrices((width / 2, height / 2), motion, False),
        bends=None,
        drawn=np.ones(frames, dtype=bool),
    )


def occluder(rng: np.random.Generator, draw: StillDraw) -> CutOut:
    """Another object, or a random shape filled with a piece of a photo."""
    if rng.random() < 0.5:
        found = draw.cut_out(rng, draw.still(rng))
        if found is not None:
            return CutOut(found.image, found.alpha, None)
    photo = draw.still(rng).image
    side = min(photo.shape[:2])
    y = int(rng.integers(photo.shape[0] - side + 1))
    x = int(rng.integers(photo.shape[1] - side + 1))
    piece = np.ascontiguousarray(photo[y : y + side, x : x + side])
    return CutOut(piece, feathered(blob(rng, side)), None)
