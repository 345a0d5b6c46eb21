"""Clips cut from videos with label maps (Sec 4.1.1: main training on video).

The frames of a clip lie random gaps apart, small at first and up to 25 frames later; the crop,
the flip and the colors are shared by the clip.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float64, Int

from stremn.data.clips.clip import Clip, first_usable, introduce
from stremn.data.clips.colors import ColorRange, color_matrix
from stremn.data.clips.layers import Layer, channels_first, render
from stremn.data.clips.warps import Matrices, Motion, motion_matrices, smooth_path
from stremn.data.readers.labelled_videos import VideoReader
from stremn.data.shapes import Mask, large_ids, middle_of
from stremn.errors import StremnError
from stremn.media.frames import Picture
from stremn.media.mask_codes import VOID


@dataclass(frozen=True)
class GapSchedule:
    """Largest gap between the frames of a clip over the course of training.

    steps: (progress at which it starts, largest gap), in order. The default grows by 5 up to 25
    in equal parts, as STM trains; STCN falls back to 5 for the last tenth.
    """

    steps: tuple[tuple[float, int], ...] = ((0.0, 5), (0.2, 10), (0.4, 15), (0.6, 20), (0.8, 25))

    def __post_init__(self) -> None:
        starts = [start for start, _ in self.steps]
        if not starts or starts[0] != 0.0 or starts != sorted(starts):
            raise StremnError(f"A gap schedule must start at 0 and rise in progress, got {starts}.")
        if min(gap for _, gap in self.steps) < 1:
            raise StremnError("Gaps are counted from one frame to the next and must be 1 or more.")

    def __call__(self, progress: float) -> int:
        """Return the largest gap at `progress` in [0, 1]."""
        return [gap for start, gap in self.steps if start <= progress][-1]


def frame_times(
    rng: np.random.Generator, length: int, frames: int, largest_gap: int
) -> Int[np.ndarray, " t"]:
    """Return indices of a clip's frames in a video of `length` frames, in order of time.

    Gaps are drawn evenly from 1 to `largest_gap`, or to what the video has room for; a video
    shorter than the clip is played forwards and backwards.
    """
    if length < frames:
        if length == 1:
            return np.zeros(frames, dtype=np.int64)
        period = 2 * (length - 1)
        place = (np.arange(frames) + rng.integers(period)) % period
        return np.minimum(place, period - place)
    room = (length - 1) // max(1, frames - 1)
    gaps = rng.integers(1, max(1, min(largest_gap, room)) + 1, frames - 1)
    times = np.concatenate([[0], np.cumsum(gaps)])
    return times + rng.integers(length - times[-1])


VIDEO_COLOR = ColorRange(0.15, 0.15, 0.15, 0.02, gray=0.03)
"""Change of color of a video clip."""


@dataclass(frozen=True)
class VideoClipParameters:
    """Chances and ranges of clips cut from videos.

    `reverse`, shared flip and color follow STM and STCN. `crop` spans from native test resolution
    (480 pixels) to a whole short side for 256-pixel clips; the camera motion is small, since real
    motion is there already.
    """

    crop: tuple[float, float] = (0.5, 1.0)
    """Side of the square crop as a share of the frame's shorter side: smallest and largest."""
    stretch: float = 0.1
    """Largest change of aspect ratio, natural logarithm."""
    offset: float = 0.25
    """Largest distance from crop center to object, as a share of the crop's side."""
    recognizable: float = 0.5
    """Share of the object that the crop of the first frame must hold, unless it is full of it."""
    present: float = 0.5
    """Share of the frames in which the object must be seen in the video; where the crop would
    lose it more often, the crop follows it all the way."""
    follow: float = 0.5
    """Chance that the crop follows the object part of the way, as a camera would."""
    reverse: float = 0.5
    """Chance to play backwards."""
    pan: float = 0.04
    """Largest added camera motion, as a share of the crop's side."""
    angle: float = 5.0
    """Largest added rotation, degrees."""
    zoom: float = 0.05
    """Largest added change of scale, natural logarithm."""
    color: ColorRange = VIDEO_COLOR
    """Change of color of the clip."""
    objects: int = 3
    """Most objects in a clip."""
    late: float = 0.5
    """Chance that objects which are not in frame 0 are given when they appear."""
    visible: float = 0.003
    """Share of the pixels an object must have in the frame where it is given."""


SMALLEST_OBJECT = 0.0005
"""Share of its frame that an object must cover to be chosen, or to count as seen."""


class VideoClips:
    """A clip source: stretches of videos, cropped around one of the objects.

    Stretches whose first frame shows no object large enough are drawn again.
    """

    def __init__(
        self,
        reader: VideoReader,
        gaps: GapSchedule | None = None,
        parameters: VideoClipParameters | None = None,
    ) -> None:
        self._reader = reader
        self._gaps = GapSchedule() if gaps is None else gaps
        self.parameters = VideoClipParameters() if parameters is None else parameters

    def sample(self, rng: np.random.Generator, frames: int, size: int, progress: float) -> Clip:
        """Draw a clip; gaps grow with `progress`. Raises StremnError if no video will do."""
        return first_usable(
            lambda: self._attempt(rng, frames, size, progress),
            f" from {len(self._reader.videos)} videos: objects are missing or smaller than "
            f"{self.parameters.visible:.1%} of the clip.",
        )

    def _attempt(
        self, rng: np.random.Generator, frames: int, size: int, progress: float
    ) -> Clip | None:
        p = self.parameters
        scene = draw_scene(rng, self._reader, frames, size, self._gaps(progress), p)
        if scene is None:
            return None
        pictures, labels = render([scene.layer], frames, size)
        late = bool(rng.random() < p.late)
        found = introduce(labels, scene.objects, round(p.visible * size * size), late)
        return None if found is None else Clip(channels_first(pictures), found[0], found[1])


@dataclass(frozen=True)
class Scene:
    """A stretch of `video` as a layer, with labelled objects 1..`objects` (in random order)."""

    video: int
    layer: Layer
    objects: int


def draw_stretch(
    rng: np.random.Generator,
    reader: VideoReader,
    frames: int,
    largest_gap: int,
    reverse: float,
    avoid: Collection[int] = (),
) -> tuple[int, Int[np.ndarray, " t"]] | None:
    """Return a video, none of `avoid`, and the indices of a stretch of it, perhaps backwards.

    None when every video is to be avoided.
    """
    free = [video for video in range(len(reader.videos)) if video not in avoid]
    if not free:
        return None
    video = free[int(rng.integers(len(free)))]
    times = frame_times(rng, reader.length(video), frames, largest_gap)
    return video, times[::-1] if rng.random() < reverse else times


def draw_scene(
    rng: np.random.Generator,
    reader: VideoReader,
    frames: int,
    size: int,
    largest_gap: int,
    p: VideoClipParameters,
) -> Scene | None:
    """Return a stretch cropped around one of the objects of its first frame; None if that has
    none."""
    stretch = draw_stretch(rng, reader, frames, largest_gap, p.reverse)
    if stretch is None:
        return None
    video, times = stretch
    first_item = reader.read(video, int(times[0]))
    first = first_item[1]
    numbers = [] if first is None else large_ids(first, SMALLEST_OBJECT)
    if first is None or not numbers:
        return None  # the other frames need not be decoded
    items = [first_item, *(reader.read(video, int(time)) for time in times[1:])]
    main = int(rng.choice(numbers))
    every = [ids for _, ids in items]
    chosen = _chosen(rng, every, main, p.objects)
    track, seen = _track(every, main)
    if seen < p.present * frames:
        return None
    side = _crop_side(rng, first.shape, p)
    center = _crop_center(rng, first == main, track, side, p)
    follow = rng.uniform(0, 1) if rng.random() < p.follow else 0.0
    path = center + follow * (track - track[0])
    if np.mean(np.abs(track - path).max(axis=1) > side / 2) > 1 - p.present:
        path = center + track - track[0]
    pictures, maps = [picture for picture, _ in items], _renumbered(every, chosen)
    layer = camera_layer(rng, pictures, maps, path, side, size, p)
    return Scene(video, layer, len(chosen))


def _chosen(
    rng: np.random.Generator, maps: Sequence[Mask | None], main: int, most: int
) -> Int[np.ndarray, " n"]:
    """Return ids of `main` and of others seen in any frame, up to `most`, in random order."""
    seen = {n for ids in maps if ids is not None for n in large_ids(ids, SMALLEST_OBJECT)}
    others = rng.permutation(sorted(seen - {main}))[: most - 1]
    return rng.permutation(np.array([main, *others], dtype=np.int64))


def _renumbered(maps: Sequence[Mask | None], chosen: Int[np.ndarray, " n"]) -> list[Mask]:
    """Renumber the ids `chosen` to 1, 2, ...; a frame without a map is void."""
    table = np.zeros(256, dtype=np.uint8)
    table[chosen] = np.arange(1, len(chosen) + 1)
    table[VOID] = VOID
    shape = next(ids.shape for ids in maps if ids is not None)
    return [np.full(shape, VOID, np.uint8) if ids is None else cv2.LUT(ids, table) for ids in maps]


def _track(maps: Sequence[Mask | None], number: int) -> tuple[Float64[np.ndarray, "t 2"], int]:
    """Return the middle (x, y) of an object in each frame, and in how many it is seen.

    Where it is not seen, straight lines join the others; it must be seen in the first frame.
    """
    seen: list[int] = []
    middles: list[tuple[float, float]] = []
    for time, ids in enumerate(maps):
        middle = None if ids is None else middle_of((ids == number).view(np.uint8))
        if middle is not None:
            seen.append(time)
            middles.append(middle)
    x, y = np.array(middles).T
    times = np.arange(len(maps))
    return np.stack([np.interp(times, seen, x), np.interp(times, seen, y)], axis=1), len(seen)


def _crop_side(rng: np.random.Generator, shape: tuple[int, ...], p: VideoClipParameters) -> float:
    """Return the side of the square crop, in frame pixels."""
    return min(shape[:2]) * float(np.exp(rng.uniform(*np.log(p.crop))))


def _crop_center(
    rng: np.random.Generator,
    mask: Bool[np.ndarray, "height width"],
    track: Float64[np.ndarray, "t 2"],
    side: float,
    p: VideoClipParameters,
) -> Float64[np.ndarray, "2"]:
    """Return the middle of the first frame's crop: near the object, or near where it moves.

    A crop that gives too little of the object to know it by is moved onto it.
    """
    focus = track[0] if rng.random() < 0.5 else track.mean(axis=0)
    center = _inside(focus + rng.uniform(-1, 1, 2) * p.offset * side, side, mask.shape)
    x0, y0 = np.maximum(center - side / 2, 0).astype(int)
    x1, y1 = (center + side / 2).astype(int)
    shown = np.count_nonzero(mask[y0:y1, x0:x1])
    if shown >= min(p.recognizable * np.count_nonzero(mask), 0.15 * side * side):
        return center
    return _inside(track[0] + rng.uniform(-1, 1, 2) * 0.1 * side, side, mask.shape)


def _inside(
    center: Float64[np.ndarray, "*t 2"], side: float, shape: tuple[int, ...]
) -> Float64[np.ndarray, "*t 2"]:
    """Move crops of `side` that stick out of the frame into it where they fit."""
    half = np.full(2, side / 2)
    return np.clip(center, half, np.maximum(np.array([shape[1], shape[0]]) - half, half))


def camera_layer(
    rng: np.random.Generator,
    pictures: Sequence[Picture],
    maps: Sequence[Mask] | None,
    path: Float64[np.ndarray, "t 2"],
    side: float,
    size: int,
    p: VideoClipParameters,
) -> Layer:
    """Return an opaque layer: square crops whose middles follow `path`, the camera moving
    slightly."""
    centers = _inside(path, side, pictures[0].shape)
    camera = _camera(rng, side, len(pictures), size, p)
    to_center = np.tile(np.eye(3), (len(pictures), 1, 1))
    to_center[:, :2, 2] = -centers
    return Layer(
        pictures=pictures,
        alphas=None,
        ids=maps,
        color=color_matrix(rng, p.color),
        matrices=camera @ to_center,
        bends=None,
        drawn=np.ones(len(pictures), dtype=bool),
    )


def any_view(
    rng: np.random.Generator, pictures: Sequence[Picture], size: int, p: VideoClipParameters
) -> Layer:
    """Return a crop anywhere in a stretch of video, without labels."""
    shape = pictures[0].shape
    focus = rng.uniform(0, 1, 2) * (shape[1], shape[0])
    path = np.tile(focus, (len(pictures), 1))
    return camera_layer(rng, pictures, None, path, _crop_side(rng, shape, p), size, p)


def _camera(
    rng: np.random.Generator, side: float, frames: int, size: int, p: VideoClipParameters
) -> Matrices:
    """Return maps from frame pixels around the crop's middle to canvas pixels, one per frame."""
    path = smooth_path(rng, frames, 4, 2 + frames // 4)
    stretch = np.exp(rng.uniform(-p.stretch, p.stretch) / 2)
    motion = Motion(
        position=size / 2 + p.pan * size * path[:, :2],
        scale=size / side * np.exp(p.zoom * path[:, 2]),
        angle=np.deg2rad(p.angle) * path[:, 3],
        shear=np.zeros(frames),
        tilt=np.zeros((frames, 2)),
    )
    wide = motion_matrices((0.0, 0.0), motion, bool(rng.random() < 0.5))
    about = np.diag([stretch, 1 / stretch, 1.0])
    about[:2, 2] = size / 2 * (1 - about[[0, 1], [0, 1]])
    return about @ wide
