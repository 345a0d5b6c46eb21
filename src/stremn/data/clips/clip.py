"""Training clips: what a clip is, how clips are batched, and which clip has which number.

A clip source is stateless: it turns a random generator into a clip. `ClipDataset` gives clip
number i its own generator, made of (seed, i) alone. So a run resumes at any clip, workers and
ranks share the numbers without repeating one, and any single clip can be reproduced for inspection.
"""

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Int, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from stremn.errors import StremnError
from stremn.media.mask_codes import VOID

ATTEMPTS = 300
"""Draws of a clip before its data is called unusable. A clip is drawn again from the same
numbers by every resumed run, so that one unlucky clip would end a training for good."""

PADDING = -1
"""`given` of an object that does not exist (a batch has room for the fullest clip's objects)."""


@dataclass(frozen=True)
class Clip:
    """A few frames with their label maps, and when each object is introduced.

    frames: RGB, 0-255.
    labels: 0 background, 1..o objects, 255 void. Before its `given` frame an object is background.
    given: index of the frame at which object j + 1 is introduced with its true mask; 0 or later.
    Raises StremnError when shapes, types or ids disagree, or an object has no pixel in its
    given frame, or none is given in frame 0.
    """

    frames: UInt8[np.ndarray, "t 3 height width"]
    labels: UInt8[np.ndarray, "t height width"]
    given: Int[np.ndarray, " o"]

    def __post_init__(self) -> None:
        count = self.frames.shape[0]
        if self.frames.dtype != np.uint8 or self.labels.dtype != np.uint8:
            raise StremnError(
                "A clip's frames and labels must be uint8, "
                f"got {self.frames.dtype} and {self.labels.dtype}."
            )
        if (
            self.frames.ndim != 4
            or self.frames.shape[1] != 3
            or self.labels.shape != (count, *self.frames.shape[2:])
        ):
            raise StremnError(
                "A clip needs frames (t, 3, height, width) and labels (t, height, width), "
                f"got {self.frames.shape} and {self.labels.shape}."
            )
        if self.given.ndim != 1 or self.given.size == 0 or self.given.min() != 0:
            raise StremnError(
                "A clip needs at least one object, introduced in frame 0; "
                f"its `given` is {self.given.tolist()}."
            )
        if self.given.max() >= count:
            raise StremnError(
                f"A clip of {count} frames cannot introduce an object in frame "
                f"{int(self.given.max())}."
            )
        ids = self.labels[self.labels != VOID]
        if ids.size and int(ids.max()) > self.given.size:
            raise StremnError(
                f"The clip's labels hold object {int(ids.max())}, "
                f"but only {self.given.size} are given."
            )
        for number, frame in enumerate(self.given.tolist(), start=1):
            if not (self.labels[frame] == number).any():
                raise StremnError(
                    f"Object {number} has no pixel in frame {frame}, where it is introduced."
                )


@dataclass(frozen=True)
class ClipBatch:
    """Clips of equal length and size; `given` is -1 where a clip has fewer objects.

    Raises StremnError when shapes or types disagree.
    """

    frames: UInt8[Tensor, "b t 3 height width"]
    labels: UInt8[Tensor, "b t height width"]
    given: Int64[Tensor, "b o"]

    def __post_init__(self) -> None:
        shape = tuple(self.frames.shape)
        if (
            len(shape) != 5
            or shape[2] != 3
            or tuple(self.labels.shape) != (*shape[:2], *shape[3:])
            or self.given.ndim != 2
            or self.given.shape[0] != shape[0]
        ):
            raise StremnError(
                "A clip batch needs frames (b, t, 3, height, width), labels (b, t, height, width) "
                f"and given (b, o), got {shape}, {tuple(self.labels.shape)} "
                f"and {tuple(self.given.shape)}."
            )
        types = (self.frames.dtype, self.labels.dtype, self.given.dtype)
        if types != (torch.uint8, torch.uint8, torch.int64):
            raise StremnError(
                f"A clip batch needs uint8 frames and labels and int64 given, got {types}."
            )

    def to(self, device: torch.device | str) -> "ClipBatch":
        """Return the same batch on `device`."""
        return ClipBatch(
            self.frames.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            self.given.to(device, non_blocking=True),
        )

    def pin_memory(self) -> "ClipBatch":
        """Return the same batch in page-locked memory (called by the data loader)."""
        return ClipBatch(
            self.frames.pin_memory(), self.labels.pin_memory(), self.given.pin_memory()
        )


def collate(clips: Sequence[Clip]) -> ClipBatch:
    """Stack clips of equal length and size; pad `given` to the fullest clip with -1."""
    shapes = {clip.frames.shape for clip in clips}
    if len(shapes) != 1:
        raise StremnError(
            f"The clips of a batch must have equal frames and size, got {sorted(shapes)}. "
            "A batch must not reach over the end of a stage."
        )
    objects = max(clip.given.size for clip in clips)
    given = np.full((len(clips), objects), PADDING, dtype=np.int64)
    for row, clip in zip(given, clips, strict=True):
        row[: clip.given.size] = clip.given
    return ClipBatch(
        torch.from_numpy(np.stack([clip.frames for clip in clips])),
        torch.from_numpy(np.stack([clip.labels for clip in clips])),
        torch.from_numpy(given),
    )


class ClipSource(Protocol):
    """A source of clips. Stateless: the same generator state gives the same clip."""

    def sample(self, rng: np.random.Generator, frames: int, size: int, progress: float) -> Clip:
        """Draw a clip of `frames` frames of `size` x `size` pixels.

        `progress` in [0, 1] is how far the training is, for sources with a curriculum.
        """
        ...


def first_usable(attempt: Callable[[], Clip | None], why: str) -> Clip:
    """Return the first clip that an attempt makes; `None` is one that cannot be used.

    Raises StremnError after `ATTEMPTS` draws; `why` is the rest of its sentence.
    """
    for _ in range(ATTEMPTS):
        clip = attempt()
        if clip is not None:
            return clip
    raise StremnError(f"No usable clip in {ATTEMPTS} draws{why}")


@dataclass(frozen=True)
class Stage:
    """A stretch of training with clips of one length and size.

    clips: how many it lasts, of all processes together; frames: in each clip; size: pixels of a
    side; weights: how often each source is drawn, by name and on any positive scale.
    """

    clips: int
    frames: int
    size: int
    weights: Mapping[str, float]


class ClipDataset(Dataset[Clip]):
    """All clips of a training run, numbered; clip i depends on (seed, i) and nothing else.

    sources: by name. stages: follow one another.
    Raises StremnError on a weight that names no source, or on a stage without clips or weights.
    """

    def __init__(
        self, sources: Mapping[str, ClipSource], stages: Sequence[Stage], seed: int
    ) -> None:
        if not stages or min(stage.clips for stage in stages) < 1:
            raise StremnError("A training needs at least one stage of at least one clip.")
        self._sources = list(sources.values())
        self._stages = list(stages)
        self._shares = [_shares(list(sources), stage.weights) for stage in stages]
        self._ends = list(accumulate(stage.clips for stage in stages))
        self._seed = seed

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Clip:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        rng = np.random.default_rng((self._seed, index))
        position = bisect.bisect_right(self._ends, index)
        stage = self._stages[position]
        source = self._sources[rng.choice(len(self._sources), p=self._shares[position])]
        return source.sample(rng, stage.frames, stage.size, index / len(self))


def _shares(names: list[str], weights: Mapping[str, float]) -> list[float]:
    """Return probabilities in the order of `names`; a name without weight has 0."""
    unknown = sorted(set(weights) - set(names))
    if unknown:
        raise StremnError(
            f"Weights name sources that do not exist: {', '.join(unknown)}. "
            f"Known sources: {', '.join(names) or 'none'}."
        )
    values = [float(weights.get(name, 0.0)) for name in names]
    if not values or min(values) < 0 or sum(values) <= 0:
        raise StremnError(
            f"Source weights must not be negative and one must be positive, got {dict(weights)}."
        )
    return [value / sum(values) for value in values]


def introduce(
    labels: UInt8[np.ndarray, "t height width"], objects: int, visible: int, late: bool
) -> tuple[UInt8[np.ndarray, "t height width"], Int[np.ndarray, " o"]] | None:
    """Decide when each of the ids 1..`objects` is given, and renumber those that ever are.

    An object is given in frame 0 if that shows at least `visible` of its pixels; if it does not
    and `late` is set, in the first frame that also shows 0.4 of the most that is ever seen of
    it. Before, and if there is no such frame, it is background. Returns the new labels and
    `given` (frame of each object), or None when frame 0 gives no object.
    """
    order: list[tuple[int, int]] = []
    for number in range(1, objects + 1):
        areas = np.count_nonzero(labels == number, axis=(1, 2))
        if areas[0] >= visible:
            order.append((number, 0))
        elif late and areas.max() >= visible:
            order.append((number, int(np.argmax(areas >= max(visible, 0.4 * areas.max())))))
    if not any(frame == 0 for _, frame in order):
        return None
    result = np.where(labels == VOID, np.uint8(VOID), np.uint8(0))
    for new, (old, frame) in enumerate(order, start=1):
        result[frame:][labels[frame:] == old] = new
    return result, np.array([frame for _, frame in order], dtype=np.int64)
