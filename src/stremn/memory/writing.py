"""Eq 4: store a new template in the slot that the replacement rule chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from stremn.memory.choices import Choice, UpdatePolicy, open_slots
from stremn.memory.state import NEVER, MemoryState, Template
from stremn.memory.summary import LEAST, with_frame


class Write(Protocol):
    """Stores a template: `write` below, or what is put in its place (Appendix B)."""

    def __call__(
        self,
        state: MemoryState,
        new: Template,
        policy: UpdatePolicy,
        *,
        pin: bool | Bool[Tensor, " b"] = False,
        reuse: bool = False,
    ) -> tuple[MemoryState, Choice]:
        """Return the new state and the choice made."""
        ...


def write(
    state: MemoryState,
    new: Template,
    policy: UpdatePolicy,
    *,
    pin: bool | Bool[Tensor, " b"] = False,
    reuse: bool = False,
) -> tuple[MemoryState, Choice]:
    """Write a template (Eq 4): X_i = (1 - a_i) X_i + a_i X_t, with the one-hot a of `policy`.

    A template written with `pin` (for all entries or some) is stored, unless every slot is pinned
    already (see `with_room_to_pin`), and never replaced. A frame that the memory already holds
    replaces its earlier template: the same frame with a better mask. Returns the new state and the
    choice made.

    With `reuse` the template is stored in the tensors of `state` instead of in copies, and `state`
    must not be used again. It is for callers that hold one state and need no gradient.
    """
    if state.growth and state.filled == state.slots:
        state = state.grown(state.growth)
    choice = policy(state, new, open_slots(state))
    pinning = torch.as_tensor(pin, device=state.pinned.device)  # one for all, or "b"
    choice = replace(choice, replace=_insist(choice.replace, state, new.frame, pinning))
    written = choice.replace.detach() > 0.5
    store: Callable[[Tensor, Tensor], Tensor] = partial(_overwrite, a=choice.replace)
    if reuse:
        store = partial(_store, places=written.nonzero().tolist())  # a GPU is waited for once
    tally = state.tally if choice.tally is None else choice.tally
    after = replace(
        state,
        keys=store(state.keys, new.key),
        values=store(state.values, new.value),
        update_keys=store(state.update_keys, new.update_key),
        evidence=store(state.evidence, new.evidence),
        written_at=state.written_at.masked_fill(written, new.frame),
        pinned=state.pinned | (written & pinning[..., None]),
        seen=state.seen + 1,
        tally=tally.masked_fill(written, 0.0),
        summary=_summarized(state, new, pinning),
    )
    if state.filled < state.slots:  # a rule may leave slots empty before one that it takes
        numbers = torch.arange(1, state.slots + 1, device=written.device)
        last = int((written.any(0) * numbers).max())
        after = replace(after, filled=max(state.filled, last))
    return after, choice


def with_room_to_pin(
    state: MemoryState, frame: int | Int[Tensor, ""], pin: Bool[Tensor, " b"]
) -> tuple[MemoryState, Bool[Tensor, " b"]]:
    """Return the memory, and which entries of `pin` can pin a template of `frame` in it.

    The latest frame needs a slot too, so that at most all slots but one are pinned. An entry that
    has as many lets go of its oldest pin but the first: the first mask and the newest corrections
    stay. With two slots only the first mask is pinned.
    """
    held = (state.pinned & (state.written_at == frame)).any(1)  # a frame is corrected again
    full = state.pinned.sum(1) >= state.slots - 1
    last = torch.iinfo(state.written_at.dtype).max
    age = torch.where(state.pinned, state.written_at, last)
    later = age.scatter(1, age.argmin(1, keepdim=True), last)
    oldest = torch.zeros_like(state.pinned).scatter(1, later.argmin(1, keepdim=True), True)
    released = oldest & (later < last) & (pin & full & ~held)[:, None]
    state = replace(state, pinned=state.pinned & ~released)
    none = ~state.pinned.any(1)
    return state, pin & (held | none | (state.pinned.sum(1) < state.slots - 1))


def _summarized(state: MemoryState, new: Template, pin: Bool[Tensor, "..."]) -> Tensor | None:
    """Return the summaries with the new frame; pinned templates count as given masks.

    A memory that holds no other frame begins its summary anew: the same frame with a better mask.
    """
    if state.summary is None or new.sums is None:
        return state.summary
    positions = new.key.shape[1] * new.key.shape[2]
    begins = (state.vacant | (state.written_at == new.frame)).all(1)
    return with_frame(
        state.summary,
        new.sums,
        given=pin.expand(state.batch),
        earlier=torch.where(begins, 0, state.pinned.sum(1).clamp(min=1)),
        shows=new.evidence[:, 0] * positions >= LEAST,
    )


def _insist(
    a: Float[Tensor, "b k"], state: MemoryState, frame: int, pin: Bool[Tensor, "..."]
) -> Float[Tensor, "b k"]:
    """Return `a` with the exceptions that the policy does not decide (see `write`).

    If it declines to store a template to be pinned, the latest evictable template is evicted.
    """
    same = state.written_at == frame
    open_ = open_slots(state)
    latest = state.written_at.masked_fill(~open_, NEVER - 1).argmax(1)
    otherwise = F.one_hot(latest, state.slots).bool() & open_
    known = same.any(1)
    declined = pin & (a.detach().sum(1) < 0.5)
    settled = same | (otherwise & ~known[:, None])
    return torch.where((known | declined)[:, None], settled.to(a.dtype), a)


def _overwrite(slots: Tensor, new: Tensor, a: Float[Tensor, "b k"]) -> Tensor:
    """Apply Eq 4 to one stored tensor; `slots` "b k ...", `new` "b ..."."""
    a = a.reshape(*a.shape, *[1] * (slots.dim() - 2))
    new = new.unsqueeze(1).to(slots.dtype)
    if not a.requires_grad:  # the same result, in one pass, with nothing kept for backward
        return torch.where(a > 0.5, new, slots)
    a = a.to(slots.dtype)
    return (1 - a) * slots + a * new


def _store(slots: Tensor, new: Tensor, places: Sequence[Sequence[int]]) -> Tensor:
    """Apply Eq 4 in place: write only the slots at `places` (entry, slot)."""
    for entry, slot in places:
        slots[entry, slot].copy_(new[entry])
    return slots
