"""Section 3: a memory with a fixed number of slots, and the templates in them.

A *template* stores one frame: its key, value and update key. The memory holds `k` templates, one
per slot.

The paper stores the feature map X and projects all K of them at every step. Here the projections
are stored. Projections are convolutions of single templates, and Eq 4 with a one-hot vector picks
whole templates. So projecting before or after Eq 4 is the same, forward and backward, and a step
projects one frame, not K + 1.

Letters: b batch entries (one per object), k slots, h w positions (stride 16), ck cv cu channels.
Channels come last, so that a read is two plain matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stremn.memory.matching import EQUATION_5, Matching

EVIDENCE = 2
"""Numbers of evidence kept with a template: object mass and confidence, both in [0, 1]."""


NEVER = -1
"""`written_at` of an empty slot."""


@dataclass(frozen=True)
class Template:
    """One projected frame to store.

    `frame` is its index in the video. `evidence` has the object's mass in the frame (mean of
    the soft mask) and the model's confidence. `query_key` is the frame's read key, for rules that
    use the attention of the frame on each slot, computed as the read with `matching` does.
    `sums` are what the frame adds to the summary of each object (`memory.summary`), if it has one.
    """

    key: Float[Tensor, "b h w ck"]
    value: Float[Tensor, "b h w cv"]
    update_key: Float[Tensor, "b h w cu"]
    evidence: Float[Tensor, "b e"]
    frame: int
    query_key: Float[Tensor, "b h w ck"] | None = None
    matching: Matching = EQUATION_5
    sums: Float[Tensor, "b c c1"] | None = None

    @property
    def maps(self) -> tuple[Tensor, Tensor, Tensor]:
        """Key, value and update key."""
        return self.key, self.value, self.update_key

    @property
    def compared(self) -> Float[Tensor, "b h w c"]:
        """What Eq 1 compares: the update key, or the key where a network has no update keys."""
        return self.update_key if self.update_key.shape[-1] else self.key


@dataclass(frozen=True)
class MemoryState:
    """The memory: tensors of a size fixed at creation.

    K lives here, not in the weights: weights trained with one K run with any other.
    `growth` is the number of slots added when all are taken: 0, the paper's memory, never grows.
    `filled` bounds the leading slots that can hold a template; those behind it are empty.
    `summary` is that of each object, for networks that read one: sums of frames with given masks,
    and of all frames (`memory.summary`).
    """

    keys: Float[Tensor, "b k h w ck"]
    values: Float[Tensor, "b k h w cv"]
    update_keys: Float[Tensor, "b k h w cu"]
    evidence: Float[Tensor, "b k e"]
    written_at: Int[Tensor, "b k"]
    pinned: Bool[Tensor, "b k"]
    seen: Int[Tensor, " b"]
    tally: Float[Tensor, "b k"]
    filled: int = 0
    growth: int = 0
    summary: Float[Tensor, "b 2 c c1"] | None = None

    @classmethod
    def empty(
        cls,
        batch: int,
        slots: int,
        grid: tuple[int, int],
        *,
        key: int,
        value: int,
        update_key: int,
        growth: int = 0,
        summary: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> MemoryState:
        """Return a memory of `slots` empty slots for `batch` entries on an h x w `grid`.

        `summary` is the number of features that a summary is of; 0: there is none.
        """
        if slots < 1:
            raise ValueError(f"A memory needs at least one slot, got slots={slots}.")

        def maps(channels: int) -> Tensor:
            return torch.zeros(batch, slots, *grid, channels, dtype=dtype, device=device)

        precise = torch.promote_types(dtype, torch.float32)
        sums = torch.zeros(batch, 2, summary, summary + 1, dtype=precise, device=device)
        return cls(
            keys=maps(key),
            values=maps(value),
            update_keys=maps(update_key),
            evidence=torch.zeros(batch, slots, EVIDENCE, device=device),
            written_at=torch.full((batch, slots), NEVER, dtype=torch.int64, device=device),
            pinned=torch.zeros(batch, slots, dtype=torch.bool, device=device),
            seen=torch.zeros(batch, dtype=torch.int64, device=device),
            tally=torch.zeros(batch, slots, device=device),
            growth=growth,
            summary=sums if summary else None,
        )

    @property
    def batch(self) -> int:
        """Number of batch entries."""
        return self.keys.shape[0]

    @property
    def slots(self) -> int:
        """Number of slots, K."""
        return self.keys.shape[1]

    @property
    def vacant(self) -> Bool[Tensor, "b k"]:
        """Which slots hold nothing yet."""
        return self.written_at == NEVER

    @property
    def compared(self) -> Float[Tensor, "b k h w c"]:
        """What Eq 1 compares: the update keys, or the keys where a network has none."""
        return self.update_keys if self.update_keys.shape[-1] else self.keys

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors: the same before and after any number of writes."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, as they are saved."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, Tensor)}

    def select(self, entries: Int[Tensor, " n"]) -> MemoryState:
        """Return the memory of some batch entries, in the order given."""
        chosen: dict[str, Any] = {name: x[entries] for name, x in self.tensors().items()}
        return replace(self, **chosen)

    def entry(self, index: int) -> MemoryState:
        """Return the memory of one batch entry: views, not copies."""
        own: dict[str, Any] = {name: x[index : index + 1] for name, x in self.tensors().items()}
        return replace(self, **own)

    def holds(self, frame: int, entries: Sequence[int]) -> bool:
        """Return whether some slot of the batch `entries` holds a frame."""
        return bool((self.written_at[list(entries)] == frame).any())

    def with_pinned(self, frame: int, entries: Sequence[int], pinned: bool) -> MemoryState:
        """Return the memory with what it holds of a frame pinned in some entries, or no longer."""
        flags = self.pinned.clone()
        for entry in entries:
            flags[entry, self.written_at[entry] == frame] = pinned
        return replace(self, pinned=flags)

    def grown(self, slots: int) -> MemoryState:
        """Return the same memory with `slots` more empty slots."""
        extra = MemoryState.empty(
            self.batch,
            slots,
            (self.keys.shape[2], self.keys.shape[3]),
            key=self.keys.shape[-1],
            value=self.values.shape[-1],
            update_key=self.update_keys.shape[-1],
            dtype=self.keys.dtype,
            device=self.keys.device,
        ).tensors()
        longer: dict[str, Any] = {
            name: torch.cat([x, extra[name]], 1)
            for name, x in self.tensors().items()
            if name not in ("seen", "summary")  # of entries, not of slots
        }
        return replace(self, **longer)


def concat(states: Sequence[MemoryState]) -> MemoryState:
    """Join memories along the batch, adding empty slots where one has fewer than another."""
    slots = max(state.slots for state in states)
    even = [s.grown(slots - s.slots) if s.slots < slots else s for s in states]
    parts = [state.tensors() for state in even]
    joined: dict[str, Any] = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return replace(even[0], **joined, filled=max(state.filled for state in even))
