"""Replacement rules beyond the paper's: by time, by object, and those of other networks."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional as F

from stremn.memory.choices import Choice, highest
from stremn.memory.slot_features import attention_mass, bare, time_gap
from stremn.memory.state import MemoryState, Template


class Spread:
    """Replace the template whose neighbors in time are closest, which keeps spacing even."""

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the evictable slot with the smallest gap between its neighbors."""
        return highest(-time_gap(state, new.frame), evictable)


class EmptyFirst:
    """Replace a template that shows almost no object, else the newest.

    "Almost none" is less than `share` of the largest object mass in any slot.
    """

    def __init__(self, share: float = 0.02) -> None:
        self.share = share

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the evictable slot with almost no object that is newest, else the newest."""
        first = bare(state, self.share) * (new.frame + 1.0)
        return highest(state.written_at + first, evictable)


class SpreadOccupied:
    """Spread and empty-first together: evict a template with almost no object first, else spread.

    Frames without the object do not count as neighbors: the spacing of the others stays even.
    """

    def __init__(self, share: float = 0.02) -> None:
        self.share = share

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the evictable slot with almost no object, or with the smallest gap."""
        gap = time_gap(state, new.frame)
        return highest(-gap + bare(state, self.share) * (new.frame + 1.0), evictable)


class UpperConfidence:
    """RMem's rule: replace the lowest of recent attention plus a bonus for young slots.

    Relevance is a moving average of attention mass (0.8 new, 0.2 old); the bonus is
    1.5 sqrt(log(sum of ages) / (age + 8)). The newest template is never replaced.
    """

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the evictable slot of least upper confidence bound."""
        relevance = 0.8 * attention_mass(state, new) + 0.2 * state.tally
        age = (new.frame - state.written_at).float().masked_fill(state.vacant, 0)
        total = age.sum(1, keepdim=True).clamp(min=1)
        bound = relevance + 1.5 * (total.log() / (age + 8)).sqrt()
        newest = state.written_at == state.written_at.amax(1, keepdim=True)
        guarded = evictable & ~newest
        allowed = torch.where(guarded.any(1, keepdim=True), guarded, evictable)
        choice = highest(-bound, allowed)
        return Choice(choice.replace, choice.scores, relevance)


class LeastUsed:
    """AFB-URR's and XMem's rule: replace the template with least attention per frame of life."""

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the evictable slot with the least mean attention."""
        usage = state.tally + attention_mass(state, new)
        age = (new.frame - state.written_at).float().clamp(min=1)
        choice = highest(-usage / age, evictable)
        return Choice(choice.replace, choice.scores, usage)


class Diversity:
    """READMem's rule: store only if some replacement raises the determinant of the Gram matrix."""

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the replacement with the largest Gram determinant, if larger than today's."""
        b, k = state.keys.shape[:2]
        held = F.normalize(state.keys.float().reshape(b, k, -1), dim=-1)
        fresh = F.normalize(new.key.float().reshape(b, 1, -1), dim=-1)
        # Vacant slots count as orthogonal to all, so that they do not zero the determinant.
        vacant = torch.diag_embed(state.vacant.float())
        today = held @ held.transpose(1, 2) + vacant
        cross = (held @ fresh.transpose(1, 2)).squeeze(-1)  # b k
        gains = []
        for i in range(k):
            swapped, row = today.clone(), cross.clone()
            row[:, i] = 1.0
            swapped[:, i, :] = row
            swapped[:, :, i] = row
            gains.append(torch.linalg.det(swapped))
        scores = torch.stack(gains, 1)
        filling = state.vacant.any(1, keepdim=True)
        better = (scores > torch.linalg.det(today)[:, None]) | filling
        return highest(scores, evictable & better)
