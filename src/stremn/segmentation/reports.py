"""What a session answers for a frame: labels, and what the memory holds and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stremn.media.masks import Labels
from stremn.memory.choices import Choice
from stremn.memory.state import NEVER, MemoryState
from stremn.networks.working_size import WorkingSize
from stremn.segmentation.aggregation import likeliest


@dataclass(frozen=True)
class Replacement:
    """Where a template was stored.

    slot: its number.
    frame: of the template that gave way, None if the slot was empty.
    scores: the rule's, one a slot; None where the slot was not open to it.
    """

    slot: int
    frame: int | None
    scores: tuple[float | None, ...]


@dataclass(frozen=True)
class ObjectMemory:
    """What an object's memory holds after a step: the frame in each slot, None if empty."""

    id: int
    frames: tuple[int | None, ...]
    pinned: tuple[bool, ...]
    replaced: Replacement | None


@dataclass(frozen=True)
class MemoryReport:
    """What the memory holds, object by object, and how many bytes it takes."""

    objects: tuple[ObjectMemory, ...]
    nbytes: int

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


@dataclass(frozen=True, repr=False)
class StepResult:
    """What a session answers for one frame.

    labels: ids "height width" at the frame's size, uint8, or uint16 if an id is over 255.
    ids: the objects followed, in the order of `probabilities`.
    memory: what the memory holds after this frame.
    """

    frame: int
    labels: Labels
    ids: tuple[int, ...]
    memory: MemoryReport
    shares: Float[np.ndarray, "c h w"]
    size: WorkingSize

    @property
    def probabilities(self) -> Float[np.ndarray, "o height width"]:
        """Probability of each object at the frame's size, float32, in the order of `ids`."""
        return self.size.outward(self.shares)[1:]

    def __repr__(self) -> str:
        """Say what it is of, without pages of pixels."""
        height, width = self.labels.shape
        return f"StepResult(frame={self.frame}, labels={width}x{height}, ids={self.ids})"


@dataclass(frozen=True)
class Decision:
    """A policy's choice for one object: the frames its slots held before, and the choice."""

    held: Int[Tensor, " k"]
    choice: Choice

    def replacement(self) -> Replacement | None:
        """Return what gave way; None if nothing was written."""
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
    """Return what the memory holds of the objects `ids`; `state` None: there are none."""
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


def label_map_of(probabilities: Float[np.ndarray, "c height width"], ids: Sequence[int]) -> Labels:
    """Return the likeliest id of each pixel, 0 for the background, which comes first."""
    kind = np.uint16 if max(ids, default=0) > 255 else np.uint8
    if len(probabilities) == 2:  # one object: a comparison is cheaper than an argmax
        return np.where(probabilities[1] > probabilities[0], ids[0], 0).astype(kind)
    return np.array([0, *ids], dtype=kind)[likeliest(torch.from_numpy(probabilities))]
