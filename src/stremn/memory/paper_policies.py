"""The replacement rules of Table 1, and STM's growing memory."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stremn.memory.choices import Choice, highest
from stremn.memory.similarity import similarity
from stremn.memory.state import MemoryState, Template


class Oldest:
    """Rule A: replace the oldest template (a queue)."""

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the evictable slot written first."""
        return highest(-state.written_at.float(), evictable)


class Newest:
    """Rule B: replace the newest template (a stack)."""

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the evictable slot written last."""
        return highest(state.written_at.float(), evictable)


def draw(like: Float[Tensor, "b n"], seed: int | None, frame: int) -> Float[Tensor, "b n"]:
    """Draw uniform numbers in [0, 1): fixed by (seed, frame) and equal for every entry, or new.

    Equal for every entry, so that an object's memory does not depend on other objects. With `seed`
    None they come from PyTorch's generator, new for each entry, as training needs.
    """
    if seed is None:
        return torch.rand_like(like)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + frame)
    return torch.rand(like.shape[1], generator=generator).to(like).expand_as(like)


class RandomDrop:
    """Rule C: replace any template, each with the same chance."""

    def __init__(self, seed: int | None = 0) -> None:
        self.seed = seed

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return a random evictable slot."""
        return highest(draw(state.tally, self.seed, new.frame), evictable)


class RandomSelect:
    """Rule D: every past frame is kept with the same chance (reservoir sampling).

    With m slots that are not pinned, the n-th template offered is stored with chance m / n, in a
    random one of them; then each of the n is held with chance m / n.
    """

    def __init__(self, seed: int | None = 0) -> None:
        self.seed = seed

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return a random evictable slot, or none."""
        offered = state.seen + 1 - state.pinned.sum(1)
        ticket = draw(state.tally[:, :1], self.seed, new.frame)[:, 0] * offered
        place = evictable.cumsum(1) - 1  # 0, 1, ... over the evictable slots
        filling = state.vacant.any(1, keepdim=True)
        chosen = evictable & (filling | (place == ticket.long()[:, None]))
        return Choice(chosen.float(), place.float().masked_fill(~evictable, torch.nan))


class FirstAndLast:
    """Rule E: hold the pinned first template and the latest one, whatever the number of slots."""

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the slot of the latest template, or an empty one while there is none."""
        loose = ~state.pinned & ~state.vacant
        return highest(
            state.written_at.float(), torch.where(loose.any(1, keepdim=True), loose, evictable)
        )


class MostSimilar:
    """Rule F: replace the template that looks most like the new one.

    By Eq 1 on the keys of the read. On the learned update keys it would be `Learned` without noise.
    """

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the evictable slot whose keys are most similar."""
        return highest(similarity(new.key, state.keys), evictable)


class Append:
    """STM's memory: keeps the latest template, and one in every n frames before it.

    A template is kept if its frame comes n frames or more after that of the template before it,
    however often frames are memorized. For a memory with `growth`, or with more slots than the
    video needs. When it can neither grow nor find an empty slot, it replaces the latest.
    """

    def __init__(self, every: int = 5) -> None:
        self.every = every

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the latest template's slot unless it is to be kept, else an empty one."""
        loose = ~state.pinned & ~state.vacant
        times = state.written_at.masked_fill(~loose, -1)
        newest = times.amax(1, keepdim=True)
        latest = loose & (times == newest)
        later = state.vacant | (state.written_at >= newest)
        before = state.written_at.masked_fill(later, -self.every).amax(1, keepdim=True)
        passing = latest & (newest - before < self.every)
        full = ~state.vacant.any(1, keepdim=True)
        chosen = torch.where(full, latest, passing)
        return highest(times.float(), torch.where(chosen.any(1, keepdim=True), chosen, evictable))
