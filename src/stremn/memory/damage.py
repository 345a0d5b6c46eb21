"""Check a memory that was read from a file."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stremn.memory.state import EVIDENCE, NEVER, MemoryState


def check_memory(
    tensors: Mapping[str, Tensor], entries: int, grid: tuple[int, int], *, latest: int, filled: int
) -> None:
    """Check tensors from a file before a `MemoryState` is made of them.

    Args:
        tensors: by the names of `MemoryState.tensors`.
        entries: number of batch entries.
        grid: positions (h, w) of a template.
        latest: index of the last frame that can be in a slot.
        filled: as in `MemoryState`.

    Raises:
        ValueError: a tensor is missing, too many, or of another shape or type; a frame, flag or
            number that no memory can hold.
    """
    empty = MemoryState.empty(1, 1, (1, 1), key=1, value=1, update_key=1).tensors()
    other = sorted((tensors.keys() - {"summary"}) ^ empty.keys())
    if other:
        raise ValueError(f"the memory lacks {other[0]}, or {other[0]} is unknown")
    keys = tensors["keys"]
    if keys.dim() != 5 or keys.shape[1] < 1:
        raise ValueError(f"the memory's keys have the shape {tuple(keys.shape)}")
    for name, example in empty.items():
        found = tensors[name]
        shape = (entries, *[keys.shape[1], *grid][: example.dim() - 1])
        if example.dim() == 5 or name == "evidence":
            shape = (*shape[: example.dim() - 1], EVIDENCE if name == "evidence" else -1)
        wrong = found.dim() != example.dim() or any(
            side not in (-1, real) for side, real in zip(shape, found.shape, strict=True)
        )
        kind = keys.dtype if example.dim() == 5 else example.dtype
        if wrong or found.dtype != kind:
            raise ValueError(f"{name} is {found.dtype} of shape {tuple(found.shape)}")
    _check_summary(tensors.get("summary"), entries)
    _check_slots(tensors["written_at"], tensors["pinned"], tensors["seen"], latest, filled)
    if not bool(((tensors["evidence"] >= -0.01) & (tensors["evidence"] <= 1.01)).all()):
        raise ValueError("evidence is not in [0, 1]")


def _check_summary(summary: Tensor | None, entries: int) -> None:
    if summary is None:  # networks without one
        return
    sides = tuple(summary.shape)
    fits = len(sides) == 4 and sides[:2] == (entries, 2) and 0 < sides[2] == sides[3] - 1
    if not fits or summary.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"summary is {summary.dtype} of shape {sides}")


def _check_slots(
    written_at: Tensor, pinned: Tensor, seen: Tensor, latest: int, filled: int
) -> None:
    held = written_at != NEVER
    if not 0 <= filled <= held.shape[1] or bool(held[:, filled:].any()):
        raise ValueError(f"slots behind the first {filled} hold templates")
    if bool((written_at < NEVER).any()) or bool((written_at > latest).any()):
        raise ValueError(f"a slot holds a frame before 0 or after {latest}")
    for row in written_at.tolist():
        frames = [frame for frame in row if frame != NEVER]
        if len(set(frames)) < len(frames):
            raise ValueError("two slots hold one frame")
    if bool((pinned & ~held).any()):
        raise ValueError("an empty slot is pinned")
    if bool((seen < held.sum(1)).any()):
        raise ValueError("fewer templates were written than are held")
