"""The memory of one object: K templates under any rule, and a bounded list of pointers.

A template is what the model's memory encoder makes of a frame; it is key and value at once, so
that the memory here holds it as the key and leaves the value empty. Frames with a mask, a box or
clicks are *given*: the model reads them apart from those that it segmented itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from stremn.memory.choices import Choice, UpdatePolicy, open_slots
from stremn.memory.state import NEVER, MemoryState, Template
from stremn.memory.writing import write

MOST_GIVEN = 8
"""Given frames after the first that get a slot of their own; of more, the oldest competes."""


@dataclass(frozen=True)
class Encoded:
    """Features of an object in one frame.

    features: of the memory encoder, in whatever order the model keeps them.
    pointer: the object's token.
    mass, confidence: evidence, in [0, 1].
    """

    features: Float[Tensor, "..."]
    pointer: Float[Tensor, "1 c"]
    mass: float
    confidence: float


@dataclass(frozen=True)
class ObjectSlots:
    """The memory of one object.

    slots: K, as the session was opened with.
    pointers: of the latest frames that the model segmented itself, by frame.
    given: pointers of the given frames that are held, by frame.
    sharing: given frames that have no slot of their own yet (see `remember`).
    """

    slots: int
    state: MemoryState
    pointers: Mapping[int, Tensor] = field(default_factory=dict)
    given: Mapping[int, Tensor] = field(default_factory=dict)
    sharing: tuple[int, ...] = ()

    @classmethod
    def empty(cls, slots: int, encoded: Encoded) -> ObjectSlots:
        """Return a memory without templates for features like those of `encoded`."""
        channels = encoded.features.shape[-1]
        tokens = encoded.features.numel() // channels
        state = MemoryState.empty(
            1,
            slots,
            (tokens, 1),
            key=channels,
            value=0,
            update_key=0,
            dtype=encoded.features.dtype,
            device=encoded.features.device,
        )
        return cls(slots, state)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept of the object."""
        kept = [*self.pointers.values(), *self.given.values()]
        return self.state.nbytes + sum(x.nbytes for x in kept)

    def held(self) -> list[tuple[int, Float[Tensor, "tokens c"]]]:
        """Return frame and features of each template, the oldest first."""
        times = self.state.written_at[0].tolist()
        taken = sorted((t, slot) for slot, t in enumerate(times) if t != NEVER)
        return [(t, self.state.keys[0, slot, :, 0]) for t, slot in taken]

    def remember(
        self, encoded: Encoded, frame: int, policy: UpdatePolicy, *, given: bool, pointers: int
    ) -> tuple[ObjectSlots, Choice]:
        """Return the memory with a frame written, and the rule's choice.

        Given frames are pinned. The first has a slot for good. A later one shares the K slots
        with the frames around it for as long as it is one of the latest K - 1, and then gets a
        slot of its own, so that K - 1 are always there for the frames the model segmented. So
        does the model itself, which reads the latest frames, whichever those are, and all given.

        Args:
            encoded: the frame.
            frame: its index.
            policy: the replacement rule.
            given: whether the user said where the object is.
            pointers: of how many of the latest segmented frames pointers are kept.
        """
        memory = self._with_own_slots(frame)
        known = frame in memory.given
        first = not memory.given and bool(memory.state.vacant.all())
        if given and not (known or first):
            memory = memory._with_another_given(frame)
        state, choice = write(memory.state, _template(encoded, frame), policy, pin=given)
        kept = set(state.written_at[0].tolist())
        marks = {**memory.given, frame: encoded.pointer} if given else dict(memory.given)
        recent = {t: x for t, x in memory.pointers.items() if frame - t < pointers and t != frame}
        if not given and pointers:
            recent[frame] = encoded.pointer
        after = replace(
            memory,
            state=state,
            pointers=recent,
            given={t: x for t, x in sorted(marks.items()) if t in kept},
            sharing=tuple(t for t in memory.sharing if t in kept),
        )
        return after, choice

    def _with_own_slots(self, frame: int) -> ObjectSlots:
        due = tuple(t for t in self.sharing if frame - t >= self.slots - 1)
        if not due:
            return self
        rest = tuple(t for t in self.sharing if t not in due)
        return replace(self, state=self.state.grown(len(due)), sharing=rest)

    def _with_another_given(self, frame: int) -> ObjectSlots:
        memory = self
        later = [t for t in memory.given if t != min(memory.given)]
        if memory._added >= MOST_GIVEN and later:
            memory = memory._demoted(min(later))
        may_add = memory._added < MOST_GIVEN
        # With K = 1 there is no slot to share.
        if not bool(open_slots(memory.state).any()) or (may_add and memory.slots == 1):
            return replace(memory, state=memory.state.grown(1))
        return replace(memory, sharing=(*memory.sharing, frame)) if may_add else memory

    @property
    def _added(self) -> int:
        """Slots beyond K: those that given frames have, and those that they will get."""
        return self.state.slots - self.slots + len(self.sharing)

    def _demoted(self, frame: int) -> ObjectSlots:
        """Unpin a given frame, so that it can be evicted."""
        mark = self.state.written_at == frame
        return replace(
            self,
            state=replace(self.state, pinned=self.state.pinned & ~mark),
            given={t: x for t, x in self.given.items() if t != frame},
            sharing=tuple(t for t in self.sharing if t != frame),
        )


def _template(encoded: Encoded, frame: int) -> Template:
    key = encoded.features.reshape(1, -1, 1, encoded.features.shape[-1])
    nothing = key[..., :0]
    evidence = torch.tensor([[encoded.mass, encoded.confidence]], device=key.device)
    return Template(key, nothing, nothing, evidence, frame)


def positions(frames: list[int], now: int, furthest: int) -> list[int]:
    """Return how long ago each frame was, as the model can say it: 1 (just now) to `furthest`.

    What is longer ago moves up so far that, while there are places, each frame has its own.

    Args:
        frames: indices, ascending, before `now`.
        now: index of the frame to segment.
        furthest: the longest time that the model has a code for, in frames.
    """
    spare = max(1, furthest - len(frames) + 1)
    newest_first = [
        min(now - frame, place + spare, furthest) for place, frame in enumerate(reversed(frames))
    ]
    return newest_first[::-1]
