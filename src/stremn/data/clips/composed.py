"""Clips composed of moving cut-outs over moving backgrounds, of any length, with exact masks.

Real video with masks is scarce, and in short easy stretches of it any memory will do. Here
objects leave and return, hide behind others, meet others of their class, and frames of another
video cut in: what a memory of a few well-chosen templates is for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, UInt8

from stremn.data.clips.absences import beginning, run_of_frames
from stremn.data.clips.clip import Clip, first_usable, introduce
from stremn.data.clips.colors import flickering
from stremn.data.clips.compositing import Canvas, Placed
from stremn.data.clips.cut_outs import StillDraw, occluder
from stremn.data.clips.foreground import ForegroundObject, carrying, filmed
from stremn.data.clips.layers import Layer, channels_first, render
from stremn.data.clips.still_layers import (
    StillClipParameters,
    backdrop,
    passing,
)
from stremn.data.clips.video_clips import (
    GapSchedule,
    VideoClipParameters,
    any_view,
    draw_scene,
    draw_stretch,
)
from stremn.data.readers.labelled_videos import VideoReader
from stremn.data.readers.stills import StillImages
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
    distractor: float = 0.4
    """Chance of a moving object that is background."""
    lookalike: float = 0.15
    """Chance of a copy of the target, mirrored and in other colors, that is background."""
    same_class: float = 0.0
    """Chance that a second target comes from the first one's set of stills: with a set of people,
    another person, which the network has to distinguish."""
    carried: float = 0.0
    """Chance that a target cut from a still carries another target."""
    crowd: float = 0.0
    """Chance of several distractors from the target's own set of stills, such as other people."""
    crowd_size: tuple[int, int] = (2, 5)
    """How many of them: fewest and most."""
    emerging: float = 0.0
    """Chance of a copy of the target, or an object of its class, that is background and comes
    out: a second camel from behind the first."""
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


class ComposedClips:
    """A clip source: moving cut-outs of stills and videos over videos or photos.

    stills: sets to cut objects from. reader: videos for backgrounds, filmed objects and foreign
    frames; None: photos only. gaps: between the frames taken from videos. weights: how often each
    set of stills is drawn from; None: by their sizes.
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
        p = self.parameters
        return first_usable(
            lambda: _Take(self._draw, self._reader, p, rng, frames, size, gap).clip(),
            f": objects are missing or smaller than {p.visible:.1%} of the clip. "
            "check_stills and check_videos list what is wrong with the data.",
        )


@dataclass
class _Take:
    """One clip in the making, from background to front.

    gap: largest between frames taken from videos. used: numbers of the videos that are in the
    clip; none is used twice, or its object would be there once labelled and once not.
    """

    draw: StillDraw
    reader: VideoReader | None
    p: ComposedClipParameters
    rng: np.random.Generator
    frames: int
    size: int
    gap: int
    used: set[int] = field(default_factory=set)
    layers: list[Layer] = field(default_factory=list)
    front: list[Layer] = field(default_factory=list)

    @property
    def canvas(self) -> Canvas:
        """Where foreground objects are composited."""
        p = self.p
        return Canvas(self.rng, self.frames, self.size, p.motion, p.share, p.wobble)

    def clip(self) -> Clip | None:
        """Draw everything and render it; None if no target can be seen in frame 0."""
        back, count = self._background()
        self.layers.append(back)
        count = self._add_targets(count)
        if self.rng.random() < self.p.distractor:
            self._add_distractor()
        eventless = len(self.layers) == 1 and not self.front
        if self.rng.random() < self.p.occluder or eventless:
            self.front.append(self._passing())
        pictures, labels = render([*self.layers, *self.front], self.frames, self.size)
        if self.rng.random() < self.p.foreign:
            self._cut_in(pictures, labels)
        found = introduce(labels, count, round(self.p.visible * self.size**2), late=True)
        if found is None:
            return None
        pictures = flickering(self.rng, pictures, self.p.motion.flicker)
        return Clip(channels_first(pictures), found[0], found[1])

    def _background(self) -> tuple[Layer, int]:
        """Return a moving background, and how many of its own objects are targets."""
        p = self.p
        if self.reader is None or self.rng.random() < p.photo:
            photo = self.draw.still(self.rng).image
            return backdrop(self.rng, photo, None, self.frames, self.size, p.motion), 0
        if self.rng.random() < p.real_target:
            scene = draw_scene(
                self.rng, self.reader, self.frames, self.size, self.gap, p.background
            )
            if scene is not None:
                self.used.add(scene.video)
                return scene.layer, scene.objects
        return any_view(self.rng, self._view(self.frames), self.size, p.background), 0

    def _view(self, frames: int) -> list[Picture]:
        """Return a stretch of a video that is not used yet; a still photo if there is none."""
        if self.reader is not None:
            stretch = draw_stretch(
                self.rng, self.reader, frames, self.gap, self.p.background.reverse, self.used
            )
            if stretch is not None:
                video, times = stretch
                self.used.add(video)
                return [self.reader.read(video, int(time))[0] for time in times]
        return [self.draw.still(self.rng).image] * frames

    def _add_targets(self, own: int) -> int:
        """Add targets up to one or two, `own` of them in the background; return their number."""
        p, count = self.p, own
        wanted = 1 if self.rng.random() >= p.second else 2
        origin: int | None = None
        for target in range(own + 1, wanted + 1):
            leads, number = target == own + 1, count + 1
            same_class = origin is not None and self._happens(p.same_class)
            foreground = self._still_foreground(origin) if same_class else self._foreground()
            if not foreground.filmed and self._happens(p.carried):
                foreground = carrying(self.rng, foreground, self.draw.whole_cut_out(self.rng))
            has_lookalike = leads and bool(self.rng.random() < p.lookalike)
            placed = self.canvas.composite(
                foreground, number, self._absence(number > 1, has_lookalike)
            )
            if leads:
                origin = foreground.origin
                if origin is not None and self._happens(p.crowd):
                    self.layers += self._crowd(origin)
                if self._happens(p.emerging):
                    self.layers.append(self._emerging(foreground, placed))
            self.layers.append(placed.layer)
            count = number if foreground.carried is None else number + 1
            if has_lookalike:
                self.layers.insert(1, self.canvas.composite(foreground, 0, self._never()).layer)
            if self.rng.random() < p.hidden:
                self.front.append(self._cover(placed))
        return count

    def _add_distractor(self) -> None:
        """Add a moving distractor, behind or in front of the other objects."""
        absent = self._absence(True, False)
        distractor = self.canvas.composite(self._foreground(), 0, absent)
        self.layers.insert(int(self.rng.integers(1, len(self.layers) + 1)), distractor.layer)

    def _foreground(self) -> ForegroundObject:
        """Return an object to move: filmed if the videos have one that stays whole, else a
        still."""
        if self.reader is not None and self.rng.random() < self.p.filmed:
            gap = min(self.gap, FILMED_GAP)
            stretch = draw_stretch(self.rng, self.reader, self.frames, gap, 0.5, self.used)
            if stretch is not None:
                video, times = stretch
                items = [self.reader.read(video, int(time)) for time in times]
                found = filmed(items, self.rng)
                if found is not None:
                    self.used.add(video)
                    return found
        return self._still_foreground(None)

    def _still_foreground(self, origin: int | None) -> ForegroundObject:
        """Return an object of a still of one set, of any if `origin` is None."""
        number = self.draw.any_set(self.rng) if origin is None else origin
        cut = self.draw.whole_cut_out(self.rng, number)
        return ForegroundObject([cut.image], [cut.alpha], False, number)

    def _crowd(self, origin: int) -> list[Layer]:
        """Return distractors from the same set as the target, always in the picture."""
        fewest, most = self.p.crowd_size
        return [
            self.canvas.composite(self._still_foreground(origin), 0, self._never()).layer
            for _ in range(int(self.rng.integers(fewest, most + 1)))
        ]

    def _emerging(self, foreground: ForegroundObject, target: Placed) -> Layer:
        """Return a distractor of the target's class that comes out from behind it."""
        likeness = (
            foreground if self.rng.random() < 0.5 else self._still_foreground(foreground.origin)
        )
        return self.canvas.composite(
            replace(likeness, carried=None), 0, self._never(), target
        ).layer

    def _happens(self, chance: float) -> bool:
        """Draw whether an optional event happens.

        Where it is off nothing is drawn, so that seeds give the clips they gave before it existed.
        """
        return chance > 0 and bool(self.rng.random() < chance)

    def _never(self) -> Bool[np.ndarray, " t"]:
        """Return no frame."""
        return np.zeros(self.frames, dtype=bool)

    def _absence(self, may_enter: bool, has_lookalike: bool) -> Bool[np.ndarray, " t"]:
        """Return frames in which a moving object is out of the picture.

        A target with a mirrored copy is never absent: alone, the copy could not be told from it.
        """
        if has_lookalike:
            return self._never()
        if may_enter and self.rng.random() < self.p.late:
            return beginning(self.rng, self.frames)
        if self.rng.random() < self.p.away:
            return run_of_frames(self.rng, self.frames, self.p.away_run)
        return self._never()

    def _passing(self) -> Layer:
        """Return an object that crosses the canvas in the foreground."""
        return passing(self.rng, self.draw, self.frames, self.size, self.p.motion)

    def _cover(self, placed: Placed) -> Layer:
        """Return an occluder that covers an object for some frames; in a short clip it crosses."""
        covered = run_of_frames(self.rng, self.frames, self.p.away_run)
        cover = self.canvas.cover(placed, occluder(self.rng, self.draw), covered)
        return self._passing() if cover is None else cover

    def _cut_in(
        self, pictures: UInt8[np.ndarray, "t h w 3"], labels: UInt8[np.ndarray, "t h w"]
    ) -> None:
        """Replace a run of frames by those of another video or photo; nothing is labelled there."""
        chosen = np.flatnonzero(run_of_frames(self.rng, self.frames, self.p.foreign_run))
        if chosen.size == 0:
            return
        layer = any_view(self.rng, self._view(chosen.size), self.size, self.p.background)
        pictures[chosen], labels[chosen] = render([layer], chosen.size, self.size)
