"""Clips composed of moving cut-outs over moving backgrounds, of any length, with exact masks.

Real video with masks is scarce, and in short easy stretches of it any memory will do. Here
objects leave and return, hide behind others, meet their likes, and frames of another video cut
in: what a memory of a few well-chosen templates is for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from stremn.data.actors import Actor, carrying, filmed
from stremn.data.augment import (
    Layer,
    Mask,
    Motion,
    channels_first,
    color_matrix,
    motion_matrices,
    render,
)
from stremn.data.clips import Clip, introduce
from stremn.data.still_images import (
    ATTEMPTS,
    StillClipParameters,
    StillDraw,
    backdrop,
    bends,
    flickering,
    occluder,
    passing,
    random_motion,
    reduced,
)
from stremn.data.still_sets import StillImages
from stremn.data.video_clips import (
    GapSchedule,
    VideoClipParameters,
    VideoReader,
    any_view,
    draw_scene,
    draw_stretch,
)
from stremn.errors import StremnError
from stremn.media.frames import Picture

PASTED = StillClipParameters(travel=(0.05, 0.5), bend=0.0, tilt=0.08)
"""Motion and colors of what is pasted: it goes further than a still, and is tilted less."""

BACKGROUND = VideoClipParameters(pan=0.08, objects=2)
"""Crop and camera of the background video."""


@dataclass(frozen=True)
class ComposedClipParameters:
    """Chances and ranges of composed clips.

    They are judgement, not measurement: each event should be in a good part of the clips, and
    most clips should hold at least one. `foreign_run` and `away_run` follow the test in which
    replacement rules were seen to differ (other frames cut in).
    """

    real_target: float = 0.35
    """Chance that the target is the background video's own object, with the events added."""
    photo: float = 0.15
    """Chance of a moving photo instead of a video as background."""
    filmed: float = 0.4
    """Chance that a moving object is cut out of a video, so that its shape really changes."""
    second: float = 0.4
    """Chance of a second target."""
    rival: float = 0.4
    """Chance of a moving object that is background."""
    twin: float = 0.15
    """Chance of a likeness of the target, mirrored and in other colors, that is background."""
    kin: float = 0.0
    """Chance that a second target comes from the first one's set of stills: with a set of people,
    another person, to be told from the first."""
    carried: float = 0.0
    """Chance that a target cut from a still carries another target."""
    crowd: float = 0.0
    """Chance of several things of the target's own set of stills that are background: with a set
    of people, bystanders."""
    crowd_size: tuple[int, int] = (2, 5)
    """How many of them: fewest and most."""
    away: float = 0.3
    """Chance that a moving target leaves the picture and returns."""
    hidden: float = 0.35
    """Chance that something covers a target for some frames."""
    away_run: tuple[int, int] = (1, 5)
    """Frames a target is away or covered: fewest and most, if the clip has room."""
    occluder: float = 0.4
    """Chance that something passes in front."""
    foreign: float = 0.35
    """Chance that frames of another video cut in."""
    foreign_run: tuple[int, int] = (1, 4)
    """How many of them: fewest and most, if the clip has room."""
    late: float = 0.3
    """Chance that a second target enters later."""
    wobble: float = 0.5
    """Chance that a cut-out of a still bends as it moves."""
    share: tuple[float, float] = (0.10, 0.55)
    """Square root of object area / clip area: smallest and largest."""
    motion: StillClipParameters = PASTED
    """Motion and colors of what is pasted."""
    background: VideoClipParameters = BACKGROUND
    """Crop and camera of the background video."""
    visible: float = 0.004
    """Share of the pixels an object must have in the frame where it is given."""


FILMED_GAP = 3
"""Largest gap between the frames of a filmed object: its shape changes, its size hardly."""


@dataclass(frozen=True)
class Staged:
    """An actor on the canvas: its layer and where its middle is and how large it is, in pixels."""

    layer: Layer
    position: Float64[np.ndarray, "t 2"]
    extent: float


class ComposedClips:
    """A clip source: moving cut-outs of stills and videos over videos or photos.

    stills: sets to cut objects from. reader: videos for backgrounds, filmed objects and foreign
    frames; None: photos only. gaps: between the frames taken from videos.
    """

    def __init__(
        self,
        stills: Sequence[StillImages],
        reader: VideoReader | None,
        gaps: GapSchedule | None = None,
        parameters: ComposedClipParameters | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        self._draw = StillDraw(stills, weights)
        self._reader = reader
        self._gaps = GapSchedule() if gaps is None else gaps
        self.parameters = ComposedClipParameters() if parameters is None else parameters

    def sample(self, rng: np.random.Generator, frames: int, size: int, progress: float) -> Clip:
        """Draw a clip. Raises StremnError if nothing usable is found."""
        gap = self._gaps(progress)
        for _ in range(ATTEMPTS):
            clip = self._attempt(rng, frames, size, gap)
            if clip is not None:
                return clip
        raise StremnError(
            f"No usable composed clip in {ATTEMPTS} draws; objects may be missing or too small."
        )

    def _attempt(self, rng: np.random.Generator, frames: int, size: int, gap: int) -> Clip | None:
        p = self.parameters
        # No video is used twice: its object would be there once labelled and once not.
        used: set[int] = set()
        back, count = self._background(rng, frames, size, gap, used)
        layers = [back]
        front: list[Layer] = []
        wanted = 1 if rng.random() >= p.second else 2
        first = count + 1
        origin = None
        for target in range(first, wanted + 1):
            number = count + 1
            if target > first and origin is not None and _happens(rng, p.kin):
                actor = self._still_actor(rng, origin)
            else:
                actor = self._actor(rng, frames, gap, used)
            if not actor.filmed and _happens(rng, p.carried):
                actor = carrying(rng, actor, self._draw.whole_cut_out(rng))
            twin = number == first and bool(rng.random() < p.twin)
            absent = self._absence(rng, frames, number > 1, twin)
            staged = self._stage(rng, actor, number, frames, size, absent)
            origin = actor.origin if number == first else origin
            if number == first and actor.origin is not None and _happens(rng, p.crowd):
                layers += self._crowd(rng, actor.origin, frames, size)
            layers.append(staged.layer)
            count = number if actor.carried is None else number + 1
            if twin:
                here = np.zeros(frames, dtype=bool)
                layers.insert(1, self._stage(rng, actor, 0, frames, size, here).layer)
            if rng.random() < p.hidden:
                front.append(self._cover(rng, staged, frames, size))
        if rng.random() < p.rival:
            absent = self._absence(rng, frames, True, False)
            rival = self._stage(rng, self._actor(rng, frames, gap, used), 0, frames, size, absent)
            layers.insert(int(rng.integers(1, len(layers) + 1)), rival.layer)
        if rng.random() < p.occluder or (len(layers) == 1 and not front):
            front.append(passing(rng, self._draw, frames, size, p.motion))
        pictures, labels = render([*layers, *front], frames, size)
        if rng.random() < p.foreign:
            self._cut_in(rng, pictures, labels, gap, used)
        found = introduce(labels, count, round(p.visible * size * size), late=True)
        if found is None:
            return None
        pictures = flickering(rng, pictures, p.motion.flicker)
        return Clip(channels_first(pictures), found[0], found[1])

    def _background(
        self, rng: np.random.Generator, frames: int, size: int, gap: int, used: set[int]
    ) -> tuple[Layer, int]:
        """A moving background, and how many of its own objects are targets."""
        p = self.parameters
        if self._reader is None or rng.random() < p.photo:
            return backdrop(rng, self._draw.still(rng).image, None, frames, size, p.motion), 0
        if rng.random() < p.real_target:
            scene = draw_scene(rng, self._reader, frames, size, gap, p.background)
            if scene is not None:
                used.add(scene.video)
                return scene.layer, scene.objects
        pictures = self._view(rng, frames, gap, used)
        return any_view(rng, pictures, size, p.background), 0

    def _view(
        self, rng: np.random.Generator, frames: int, gap: int, used: set[int]
    ) -> list[Picture]:
        """A stretch of a video that is not used yet; a still photo if there is none."""
        if self._reader is not None:
            stretch = draw_stretch(
                rng, self._reader, frames, gap, self.parameters.background.reverse, used
            )
            if stretch is not None:
                used.add(stretch[0])
                return [self._reader.read(stretch[0], int(time))[0] for time in stretch[1]]
        return [self._draw.still(rng).image] * frames

    def _actor(self, rng: np.random.Generator, frames: int, gap: int, used: set[int]) -> Actor:
        """An object to move: filmed if the videos have one that stays whole, else a still."""
        if self._reader is not None and rng.random() < self.parameters.filmed:
            stretch = draw_stretch(rng, self._reader, frames, min(gap, FILMED_GAP), 0.5, used)
            if stretch is not None:
                video, times = stretch
                items = [self._reader.read(video, int(time)) for time in times]
                found = filmed(items, rng)
                if found is not None:
                    used.add(video)
                    return found
        return self._still_actor(rng, None)

    def _still_actor(self, rng: np.random.Generator, origin: int | None) -> Actor:
        """An object of a still of one set, of any if `origin` is None."""
        number = self._draw.any_set(rng) if origin is None else origin
        cut = self._draw.whole_cut_out(rng, number)
        return Actor([cut.image], [cut.alpha], False, number)

    def _crowd(self, rng: np.random.Generator, origin: int, frames: int, size: int) -> list[Layer]:
        """Bystanders: background of the same set as the target, always in the picture."""
        fewest, most = self.parameters.crowd_size
        here = np.zeros(frames, dtype=bool)
        return [
            self._stage(rng, self._still_actor(rng, origin), 0, frames, size, here).layer
            for _ in range(int(rng.integers(fewest, most + 1)))
        ]

    def _absence(
        self, rng: np.random.Generator, frames: int, may_enter: bool, has_twin: bool
    ) -> Bool[np.ndarray, " t"]:
        """Frames in which a moving object is out of the picture.

        One with a twin never is: without it beside, nobody could tell which of them is there.
        """
        p = self.parameters
        if has_twin:
            return np.zeros(frames, dtype=bool)
        if may_enter and rng.random() < p.late:
            return _beginning(rng, frames)
        if rng.random() < p.away:
            return _run(rng, frames, p.away_run)
        return np.zeros(frames, dtype=bool)

    def _stage(
        self,
        rng: np.random.Generator,
        actor: Actor,
        number: int,
        frames: int,
        size: int,
        absent: Bool[np.ndarray, " t"],
    ) -> Staged:
        """Give an actor a path over the canvas that leaves it in the frames `absent`.

        `number` is its label, 0 for background; what it carries has the next one.
        """
        p = self.parameters
        height, width = actor.alphas[0].shape
        area = max(1, int(np.count_nonzero(actor.alphas[0] > 127)))
        share = float(np.exp(rng.uniform(*np.log(p.share))))
        scale = min(share * size / area**0.5, 0.9 * size / max(height, width), 2.0)
        parts = [
            reduced(picture, alpha, actor.carried, scale)
            for picture, alpha in zip(actor.pictures, actor.alphas, strict=True)
        ]
        left = parts[0][3]
        extent = max(parts[0][1].shape)
        start = rng.uniform(0.2, 0.8, 2) * size
        motion = random_motion(rng, frames, (start[0], start[1]), left, extent, size, p.motion)
        motion = _moved_away(rng, motion, extent * left, size, absent)
        rows, columns = parts[0][1].shape
        box = (0.0, 0.0, float(columns), float(rows))
        wobble = not actor.filmed and rng.random() < p.wobble
        layer = Layer(
            pictures=[part[0] for part in parts],
            alphas=[part[1] for part in parts],
            ids=_labels(parts[0][1], parts[0][2], number),
            color=color_matrix(rng, p.motion.color),
            matrices=motion_matrices((columns / 2, rows / 2), motion, bool(rng.random() < 0.5)),
            bends=bends(rng, frames, box, rng.uniform(0.02, 0.10)) if wobble else None,
            drawn=np.ones(frames, dtype=bool),
        )
        return Staged(layer, motion.position, extent * left)

    def _cover(self, rng: np.random.Generator, staged: Staged, frames: int, size: int) -> Layer:
        """Something in front that slides over an actor, stays with it for a run, and goes on."""
        covered = _run(rng, frames, self.parameters.away_run)
        cut = occluder(rng, self._draw)
        scale = staged.extent * rng.uniform(1.0, 1.6) / max(cut.alpha.shape)
        image, alpha, _, left = reduced(cut.image, cut.alpha, None, scale)
        heading = rng.uniform(0, 2 * np.pi)
        inside = np.flatnonzero(covered)
        if inside.size == 0:
            return passing(rng, self._draw, frames, size, self.parameters.motion)
        time = np.arange(frames)
        distance = np.maximum(inside[0] - time, 0) * -1.0 + np.maximum(time - inside[-1], 0)
        step = staged.extent * rng.uniform(0.6, 1.5)
        offset = (distance * step)[:, None] * np.array([np.cos(heading), np.sin(heading)])
        motion = Motion(
            position=staged.position + offset,
            scale=np.full(frames, left),
            angle=np.full(frames, rng.uniform(-0.5, 0.5)),
            shear=np.zeros(frames),
            tilt=np.zeros((frames, 2)),
        )
        rows, columns = alpha.shape
        return Layer(
            pictures=[image],
            alphas=[alpha],
            ids=None,
            color=color_matrix(rng, self.parameters.motion.color),
            matrices=motion_matrices((columns / 2, rows / 2), motion, False),
            bends=None,
            drawn=np.abs(distance) <= 3,
        )

    def _cut_in(
        self,
        rng: np.random.Generator,
        pictures: UInt8[np.ndarray, "t h w 3"],
        labels: UInt8[np.ndarray, "t h w"],
        gap: int,
        used: set[int],
    ) -> None:
        """Replace a run of frames by those of another video or photo; nothing is labelled there."""
        p = self.parameters
        frames, size = labels.shape[:2]
        chosen = np.flatnonzero(_run(rng, frames, p.foreign_run))
        if chosen.size == 0:
            return
        views = self._view(rng, chosen.size, gap, used)
        layer = any_view(rng, views, size, p.background)
        pictures[chosen], labels[chosen] = render([layer], chosen.size, size)


def _labels(alpha: Mask, carried: Mask | None, number: int) -> list[Mask] | None:
    """The id map of an object, and of what it carries; None for background."""
    if not number:
        return None
    ids = np.full_like(alpha, number)
    return [ids if carried is None else ids + carried]


def _happens(rng: np.random.Generator, chance: float) -> bool:
    """Whether something that may be turned off happens.

    Where it is off nothing is drawn, so that seeds give the clips they gave before it existed.
    """
    return chance > 0 and bool(rng.random() < chance)


def _run(rng: np.random.Generator, frames: int, length: tuple[int, int]) -> Bool[np.ndarray, " t"]:
    """A run of frames, neither the first nor the last one; empty if the clip is too short."""
    chosen = np.zeros(frames, dtype=bool)
    longest = min(length[1], frames - 2)
    if longest < 1:
        return chosen
    count = int(rng.integers(min(length[0], longest), longest + 1))
    start = int(rng.integers(1, frames - count))
    chosen[start : start + count] = True
    return chosen


def _beginning(rng: np.random.Generator, frames: int) -> Bool[np.ndarray, " t"]:
    """The frames before a late object enters: at least one, at most half of the clip."""
    return np.arange(frames) < rng.integers(1, max(2, frames // 2 + 1))


def _moved_away(
    rng: np.random.Generator,
    motion: Motion,
    extent: float,
    size: int,
    absent: Bool[np.ndarray, " t"],
) -> Motion:
    """The same motion, but out of the picture in the frames `absent`.

    It leaves through the side it is nearest to, half out in the frames next to these.
    """
    if not absent.any():
        return motion
    middle = motion.position[absent].mean(axis=0)
    ways = np.array([[-1.0, 0], [1, 0], [0, -1], [0, 1]])
    rooms = np.array([middle[0], size - middle[0], middle[1], size - middle[1]])
    side = int(np.argmin(rooms))
    far = rooms[side] + 0.8 * extent + float(np.abs(motion.position - middle).max())
    share = absent.astype(np.float64)
    beside = np.zeros_like(share)
    beside[1:] = np.maximum(beside[1:], share[:-1])
    beside[:-1] = np.maximum(beside[:-1], share[1:])
    # Half of the way in the frames beside, but never in frame 0, where the object is given, nor
    # in the last one, where it must have returned.
    beside[[0, -1]] = 0
    share = np.maximum(share, rng.uniform(0.2, 0.7) * beside)
    return replace(motion, position=motion.position + share[:, None] * far * ways[side])
