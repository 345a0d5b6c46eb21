"""Results of a session for one frame: labels, and the content of the memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stremn.media.masks import Labels
from stremn.memory.choices import Choice
from stremn.memory.state import NEVER, MemoryState
from stremn.moved import earlier_fields
from stremn.networks.working_size import WorkingSize
from stremn.segmentation.aggregation import likeliest


@dataclass(frozen=True)
class Replacement:
    """Where a template was stored.

    slot: its number.
    frame: frame of the evicted template, None if the slot was empty.
    scores: the rule's score of each slot; None where the slot was not evictable.
    """

    slot: int
    frame: int | None
    scores: tuple[float | None, ...]


@dataclass(frozen=True)
class ObjectMemory:
    """Content of an object's memory after a step: the frame in each slot, None if empty."""

    id: int
    frames: tuple[int | None, ...]
    pinned: tuple[bool, ...]
    replaced: Replacement | None

    def renumbered(self, number: Callable[[int], int]) -> ObjectMemory:
        """Return the same with other frame numbers."""
        frames = tuple(None if t is None else number(t) for t in self.frames)
        replaced = self.replaced
        if replaced is not None and replaced.frame is not None:
            replaced = replace(replaced, frame=number(replaced.frame))
        return replace(self, frames=frames, replaced=replaced)


@dataclass(frozen=True)
class MemoryReport:
    """Content of the memory of each object, and its size in bytes."""

    objects: tuple[ObjectMemory, ...]
    nbytes: int

    def renumbered(self, number: Callable[[int], int]) -> MemoryReport:
        """Return the report with other frame numbers."""
        return replace(self, objects=tuple(o.renumbered(number) for o in self.objects))

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, keyed by object id."""
        return {
            "bytes": self.nbytes,
            "objects": {
                str(o.id): {
                    "slots": list(o.frames),
                    "replaced": None
                    if o.replaced is None
                    else {
                        "slot": o.replaced.slot,
                        "frame": o.replaced.frame,
                        "scores": list(o.replaced.scores),
                    },
                }
                for o in self.objects
            },
        }


@earlier_fields(shares="layer_probabilities")
@dataclass(frozen=True, repr=False)
class StepResult:
    """Result of a session for one frame.

    labels: ids "height width" at the frame's size, uint8, or uint16 if an id is over 255.
    ids: the objects followed, in the order of `probabilities`.
    memory: content of the memory after this frame.
    layer_probabilities: of background and objects at the working resolution; they sum to 1.
    """

    frame: int
    labels: Labels
    ids: tuple[int, ...]
    memory: MemoryReport
    layer_probabilities: Float[np.ndarray, "c h w"]
    size: WorkingSize

    @property
    def probabilities(self) -> Float[np.ndarray, "o height width"]:
        """Probability of each object at the frame's size, float32, in the order of `ids`."""
        return self.size.outward(self.layer_probabilities)[1:]

    @property
    def confidences(self) -> dict[int, float]:
        """Mean probability, 0..1, of each object over its pixels; without pixels it is left out."""
        layers = likeliest(torch.from_numpy(self.layer_probabilities))
        found = {}
        for place, item in enumerate(self.ids, 1):
            own = layers == place
            if own.any():
                found[item] = float(self.layer_probabilities[place][own].mean())
        return found

    def renumbered(self, number: Callable[[int], int]) -> StepResult:
        """Return the result with other frame numbers, its own and the memory's.

        Args:
            number: from the number of a frame, counted by the session, to the new one.
        """
        return replace(self, frame=number(self.frame), memory=self.memory.renumbered(number))

    def __repr__(self) -> str:
        """Return frame, size and ids, without the pixels."""
        height, width = self.labels.shape
        return f"StepResult(frame={self.frame}, labels={width}x{height}, ids={self.ids})"


@dataclass(frozen=True)
class Decision:
    """A policy's choice for one object: the frames its slots held before, and the choice."""

    held: Int[Tensor, " k"]
    choice: Choice

    def replacement(self) -> Replacement | None:
        """Return the eviction; None if nothing was written."""
        if not bool(self.choice.replace.any()):
            return None
        slot = int(self.choice.replace[0].argmax())
        before = int(self.held[slot]) if slot < len(self.held) else NEVER
        scores = self.choice.scores[0].tolist()  # NaN where a slot is not open
        rounded = tuple(None if math.isnan(s) else round(s, 6) for s in scores)
        return Replacement(slot, None if before == NEVER else before, rounded)


def memory_report(
    ids: Sequence[int], state: MemoryState | None, decisions: Mapping[int, Decision]
) -> MemoryReport:
    """Return the content of the memory of the objects `ids`; `state` is None without objects."""
    if state is None:
        return MemoryReport((), 0)
    frames, pinned = state.written_at.tolist(), state.pinned.tolist()
    rows = [
        ObjectMemory(
            name,
            tuple(None if t == NEVER else t for t in frames[i]),
            tuple(pinned[i]),
            decisions[name].replacement() if name in decisions else None,
        )
        for i, name in enumerate(ids)
    ]
    return MemoryReport(tuple(rows), state.nbytes)


def decisions(ids: Sequence[int], held: Int[Tensor, "b k"], choice: Choice) -> dict[int, Decision]:
    """Split what a policy chose for several objects by their ids; `held` is of before the write."""
    return {
        name: Decision(
            held[row], Choice(choice.replace[row : row + 1], choice.scores[row : row + 1])
        )
        for row, name in enumerate(ids)
    }


def step_result(
    frame: int,
    ids: tuple[int, ...],
    memory: MemoryReport,
    probabilities: Float[Tensor, "1 c h w"],
    size: WorkingSize,
) -> StepResult:
    """Return the result for a frame, with arrays of its own.

    A session goes on from `probabilities`, whatever becomes of the result.
    """
    arrays = probabilities[0].to("cpu", torch.float32, copy=True).numpy()
    labels = label_map_of(size.outward(arrays), ids)
    return StepResult(frame, labels, ids, memory, arrays, size)


def label_map_of(probabilities: Float[np.ndarray, "c height width"], ids: Sequence[int]) -> Labels:
    """Return the likeliest id of each pixel, 0 for the background, which comes first."""
    kind = np.uint16 if max(ids, default=0) > 255 else np.uint8
    if len(probabilities) == 2:  # one object: a comparison is cheaper than an argmax
        return np.where(probabilities[1] > probabilities[0], ids[0], 0).astype(kind)
    return np.array([0, *ids], dtype=kind)[likeliest(torch.from_numpy(probabilities))]
