"""Interface of replacement rules (policies): their input, their choice, the slots open to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from stremn.errors import StremnError
from stremn.memory.state import MemoryState, Template


@dataclass(frozen=True)
class Choice:
    """Decision of a policy: `replace` is one-hot ("this slot") or all zero ("do not store").

    `scores` are the numbers it compared, NaN where a slot could not be chosen; `tally` is the
    policy's own count for every slot, for the memory to keep until the next write.
    """

    replace: Float[Tensor, "b k"]
    scores: Float[Tensor, "b k"]
    tally: Float[Tensor, "b k"] | None = None


class UpdatePolicy(Protocol):
    """Section 3.2: chooses the slot that a new template replaces.

    `evictable` marks the slots open to the policy: only the first empty one while there is one,
    otherwise all that are not pinned. A policy may leave slots empty on purpose, as "first and
    last" and "append" do, or decline to store (all zero); it must never choose a pinned slot.
    """

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the slot of each entry that `new` replaces."""
        ...


def open_slots(state: MemoryState) -> Bool[Tensor, "b k"]:
    """Return the slots a policy may choose: the first empty one, or all that are not pinned."""
    vacant = state.vacant
    first_vacant = vacant & (vacant.cumsum(1) == 1)
    full = ~vacant.any(1, keepdim=True)
    return first_vacant | (full & ~state.pinned)


def precise(x: Tensor) -> Tensor:
    """Return x in float32 at least, for sums over many numbers and for comparing scores."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def highest(scores: Float[Tensor, "b k"], evictable: Bool[Tensor, "b k"]) -> Choice:
    """Choose the evictable slot with the highest score (the first of equals), if there is one.

    A score of minus infinity is the lowest. The choice has no gradient.
    """
    scores = precise(scores.detach())
    finite = scores.clamp(min=torch.finfo(scores.dtype).min)  # below it are closed slots alone
    open_scores = finite.masked_fill(~evictable, -torch.inf)
    best = F.one_hot(open_scores.argmax(1), scores.shape[1]).to(scores.dtype)
    return Choice(best * evictable, scores.masked_fill(~evictable, torch.nan))


def checked(choice: Choice, state: MemoryState, evictable: Bool[Tensor, "b k"]) -> Choice:
    """Return a rule's choice after checking that the memory can apply it.

    Raises:
        StremnError: it is no `Choice` of the memory's shape, a row names more than one slot, holds
            anything but 0 and 1, or names a pinned slot.
    """
    made = "The replacement rule"
    if not isinstance(choice, Choice):
        raise StremnError(f"{made} must return a Choice, got {type(choice).__name__}.")
    shape = tuple(evictable.shape)
    for name in ("replace", "scores", "tally"):
        value = getattr(choice, name)
        if value is None and name == "tally":
            continue
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise StremnError(
                f"{made} must return {name} of shape {shape} (objects, slots), got {found}."
            )
    a = choice.replace
    sound = ((a == 0) | (a == 1)).all() & (a.sum(1) <= 1).all()
    pinned = ((a > 0.5) & state.pinned).any()
    if bool(sound & ~pinned):  # one question, since a GPU is waited for at each
        return choice
    if not bool(sound):
        raise StremnError(
            f"{made} must name at most one slot of each object, with 1 there and 0 elsewhere."
        )
    raise StremnError(f"{made} named a pinned slot. Choose among the evictable ones.")


class CheckedPolicy:
    """A rule whose choices are checked before the memory changes; `then` is called after that."""

    def __init__(self, policy: UpdatePolicy, then: Callable[[], None] | None = None) -> None:
        self.policy, self.then = policy, then

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the rule's choice.

        Raises:
            StremnError: the memory cannot carry it out (see `checked`).
        """
        choice = checked(self.policy(state, new, evictable), state, evictable)
        if self.then is not None:
            self.then()
        return choice
