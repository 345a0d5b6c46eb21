"""Measure how much an eviction matters: J of the clip's end if another slot is evicted."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional as F

from stremn.data.clips.clip import ClipBatch
from stremn.memory.choices import Choice, UpdatePolicy
from stremn.memory.policies import Spread
from stremn.memory.state import MemoryState, Template
from stremn.moved import earlier_arguments
from stremn.networks.model import STReMN
from stremn.training.segmentation.rollout import last_frame_scores, rollout

POINT = 0.01
"""An eviction matters if J of the last frame depends on it by more than this."""


class Forced:
    """A policy that evicts the n-th open slot at one frame, and otherwise acts as `policy`."""

    def __init__(self, policy: UpdatePolicy, frame: int, n: int) -> None:
        self._policy, self._frame, self._n = policy, frame, n

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the policy's choice or the forced one; with fewer slots open, the last of them."""
        choice = self._policy(state, new, evictable)
        if new.frame != self._frame:
            return choice
        place = evictable.cumsum(1).clamp(max=self._n + 1)
        slot = (place * evictable).argmax(1)  # the first of those with the greatest place
        return replace(choice, replace=F.one_hot(slot, state.slots).to(choice.replace.dtype))


@torch.no_grad()
@earlier_arguments(slots="memory_slots")
def stakes(
    model: STReMN, batch: ClipBatch, *, memory_slots: int = 3, policy: UpdatePolicy | None = None
) -> dict[str, float]:
    """Run clips once for each slot that could be evicted in the middle, and compare J at the end.

    Before and after that write `policy` decides, "spread" if None. Returns "eviction_stake", the
    mean difference between best and worst choice, and "evictions_that_matter", the share of
    objects for which it is more than a point. Both are 0 where the memory has not overflowed by
    then: nothing is evicted from `memory_slots` slots in fewer than memory_slots + 2 frames.
    """
    policy = Spread() if policy is None else policy
    length = batch.frames.shape[1]
    middle = (
        memory_slots + length - 1
    ) // 2  # writes from frame `memory_slots` to length - 2 evict
    if memory_slots < 3 or middle > length - 2:
        return {"eviction_stake": 0.0, "evictions_that_matter": 0.0}
    outcomes = torch.stack(
        [
            last_frame_scores(
                rollout(model, batch, memory_slots=memory_slots, policy=Forced(policy, middle, n)),
                batch,
            )
            for n in range(memory_slots - 1)  # slot 0 holds the given mask and is never evicted
        ]
    )
    stake = outcomes.amax(0) - outcomes.amin(0)
    stake = stake[~stake.isnan()]
    return {
        "eviction_stake": float(stake.mean()),
        "evictions_that_matter": float((stake > POINT).float().mean()),
    }
