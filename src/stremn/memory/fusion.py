"""Fuse an evicted template into another one (Appendix B, Eq 6-12).

The paper reports a negative result; no model here uses fusion by default. A model whose
configuration has `fusion` writes through `Fusion`, which calls `memory.write` and then updates the
target template.

The paper fuses feature maps X^M. A slot here holds their projections, so X is the slot's key,
value and update key side by side. Unlike Eq 4, Eq 6-12 on projections are not Eq 6-12 on features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from stremn.memory.choices import Choice, UpdatePolicy
from stremn.memory.reading import affinity
from stremn.memory.similarity import similarity
from stremn.memory.state import MemoryState, Template
from stremn.memory.writing import write

Target = Callable[[MemoryState, Bool[Tensor, "b k"]], Bool[Tensor, "b k"]]
"""Chooses the slots that receive the evicted templates: (state, evicted) -> targets."""


class FusionConfig(BaseModel):
    """The fusion module of a model. `hidden` is the width inside each of the CNNs f, g and h."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Literal["least-similar", "most-similar", "every-other"] = "least-similar"
    hidden: int = Field(default=64, ge=1)
    scale: Literal["sqrt", "none"] = "sqrt"


class Fusion(nn.Module):
    """Writes as `memory.write` does, and fuses the evicted template into `target`.

    `channels` is the width of key, value and update key together; `scale` is that of the products
    in Eq 7, as in `memory.read`: "none" is the equation to the letter.
    """

    def __init__(
        self, channels: int, hidden: int, target: Target, scale: Literal["sqrt", "none"] = "sqrt"
    ) -> None:
        super().__init__()
        self.reset = _PairMap(channels, hidden)  # f
        self.update = _PairMap(channels, hidden)  # h
        self.candidate = _PairMap(channels, hidden)  # g
        self.target = target
        self.scale = scale

    def forward(
        self,
        state: MemoryState,
        new: Template,
        policy: UpdatePolicy,
        *,
        pin: bool | Bool[Tensor, " b"] = False,
        reuse: bool = False,
    ) -> tuple[MemoryState, Choice]:
        """Return the state after Eq 4 and Eq 6-12, and the choice made.

        `reuse` is ignored, because the evicted template is needed after the write. Nothing is
        fused where nothing was evicted, where a frame replaces its own earlier template (which may
        have a wrong mask), or where no other template may change.
        """
        after, choice = write(state, new, policy, pin=pin)
        written = choice.replace.detach()[:, : state.slots] > 0.5
        evicted = written & ~state.vacant & (state.written_at != new.frame)
        entries, slots = torch.nonzero(self.target(state, evicted), as_tuple=True)
        if not len(entries):
            return after, choice
        deleted = stored(state)[entries, evicted.int().argmax(1)[entries]]
        fused = self.fuse(deleted, stored(after)[entries, slots])
        widths = [after.keys.shape[-1], after.values.shape[-1], after.update_keys.shape[-1]]
        key, value, update_key = fused.to(after.keys.dtype).split(widths, dim=-1)
        place = (entries, slots)
        changed = replace(
            after,
            keys=after.keys.index_put(place, key),
            values=after.values.index_put(place, value),
            update_keys=after.update_keys.index_put(place, update_key),
        )
        return changed, choice

    def fuse(
        self, deleted: Float[Tensor, "n h w c"], target: Float[Tensor, "n h w c"]
    ) -> Float[Tensor, "n h w c"]:
        """Return `target` X_j after fusing the evicted `deleted` X_i into it (Eq 6-12)."""
        r = self.reset(deleted, align(deleted, target, self.scale)).sigmoid()  # Eq 6-8
        passed = r * deleted  # Eq 9
        aligned = align(target, passed, self.scale)  # Eq 10
        z = self.update(aligned, target).sigmoid()  # Eq 11
        return (1 - z) * target + z * self.candidate(aligned, target).tanh()  # Eq 12


class _PairMap(nn.Module):
    """The CNN behind f, g and h: two maps side by side -> one map as wide as each."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(2 * channels, hidden, 1)
        self.widen = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(
        self, one: Float[Tensor, "n h w c"], other: Float[Tensor, "n h w c"]
    ) -> Float[Tensor, "n h w c"]:
        both = torch.cat([one, other], dim=-1).permute(0, 3, 1, 2)
        return self.widen(F.relu(self.narrow(both))).permute(0, 2, 3, 1)


def align(
    to: Float[Tensor, "n h w c"],
    source: Float[Tensor, "n h w c"],
    scale: Literal["sqrt", "none"] = "none",
) -> Float[Tensor, "n h w c"]:
    """Align `source` to `to` (Eq 7): FAM(to, source) = Softmax(to source^T) source."""
    n, h, w, c = to.shape
    factor = c**-0.5 if scale == "sqrt" else 1.0
    pixels = source.reshape(n, h * w, c)
    weights = affinity(to.reshape(n, h * w, c) * factor, pixels, None)
    return (weights @ pixels).reshape(n, h, w, c)


def stored(state: MemoryState) -> Float[Tensor, "b k h w c"]:
    """Return X of every slot: key, value and update key side by side."""
    return torch.cat([state.keys, state.values, state.update_keys], dim=-1)


# Which template receives the evicted one ----------------------------------------------


def least_similar(state: MemoryState, evicted: Bool[Tensor, "b k"]) -> Bool[Tensor, "b k"]:
    """Return the template least similar to the evicted one by Eq 1, as in Table 6."""
    return _best(-_likeness(state, evicted), every_other(state, evicted))


def most_similar(state: MemoryState, evicted: Bool[Tensor, "b k"]) -> Bool[Tensor, "b k"]:
    """Return the template most similar to the evicted one by Eq 1."""
    return _best(_likeness(state, evicted), every_other(state, evicted))


def every_other(state: MemoryState, evicted: Bool[Tensor, "b k"]) -> Bool[Tensor, "b k"]:
    """Return all remaining templates that are not pinned: true masks must not change."""
    return evicted.any(1, keepdim=True) & ~evicted & ~state.pinned & ~state.vacant


@torch.no_grad()
def _likeness(state: MemoryState, evicted: Bool[Tensor, "b k"]) -> Float[Tensor, "b k"]:
    places = evicted.int().argmax(1)
    entries = torch.arange(len(places), device=places.device)
    return similarity(state.compared[entries, places], state.compared)


def _best(scores: Float[Tensor, "b k"], allowed: Bool[Tensor, "b k"]) -> Bool[Tensor, "b k"]:
    best = scores.masked_fill(~allowed, -torch.inf).argmax(1)
    return F.one_hot(best, scores.shape[1]).bool() & allowed


TARGETS: dict[str, Target] = {
    "least-similar": least_similar,
    "most-similar": most_similar,
    "every-other": every_other,
}


def build_fusion(config: FusionConfig, channels: int) -> Fusion:
    """Return a fusion module with fresh weights for slots of `channels` numbers a position."""
    return Fusion(channels, config.hidden, TARGETS[config.target], config.scale)
