"""Replacement rules with weights: the paper's (Eq 1-3), and `evidence`."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from stremn.memory.choices import Choice, highest, precise
from stremn.memory.similarity import similarity
from stremn.memory.slot_features import FEATURES, slot_features
from stremn.memory.state import MemoryState, Template


class Learned(nn.Module):
    """Eq 1-3: straight-through Gumbel-softmax over the similarity of learned update keys.

    The slot with the highest score is replaced. The update keys are learned, so training decides
    what "similar" means. Noise is drawn in training mode, and at test time too if `noisy`; `noise`
    is its size, 1 in Eq 2. Similarities are in [-1, 1] and the noise of Eq 2 has a standard
    deviation of 1.3, so most choices in training are random.
    """

    def __init__(self, tau: float = 1.0, noisy: bool = False, noise: float = 1.0) -> None:
        super().__init__()
        self.tau = tau
        self.noisy = noisy
        self.noise = noise

    def forward(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return a one-hot choice whose gradient is that of the soft one."""
        scores = similarity(new.compared, state.compared)
        noisy = self.training or self.noisy
        return gumbel_choice(scores, evictable, self.tau, noisy=noisy, noise=self.noise)


def gumbel_choice(
    scores: Float[Tensor, "b k"],
    evictable: Bool[Tensor, "b k"],
    tau: float,
    *,
    noisy: bool,
    noise: float = 1.0,
) -> Choice:
    """Choose a slot by straight-through Gumbel-softmax (Eq 2-3): hard forward, soft backward.

    The noise drawn is multiplied with `noise`, 1 in Eq 2.
    """
    drawn = -torch.empty_like(scores).exponential_().log() if noisy else torch.zeros_like(scores)
    soft = ((scores + noise * drawn) / tau).masked_fill(~evictable, -torch.inf).softmax(1)
    soft = soft.masked_fill(~evictable.any(1, keepdim=True), 0.0)  # nothing open: nothing chosen
    hard = highest(soft.detach(), evictable).replace
    # soft - soft.detach() is exactly zero, so the forward value stays exactly one-hot.
    straight_through = hard + (soft - soft.detach())
    return Choice(straight_through, scores.detach().masked_fill(~evictable, torch.nan))


class Evidence(nn.Module):
    """Extends the paper's rule: scores slots by their content, not by similarity alone.

    To the similarity of Eq 1 it adds, through a small network, the slot's object mass and
    confidence, its age, and how closely its neighbors in time stand (see `slot_features`).
    """

    def __init__(self, hidden: int = 16, tau: float = 1.0, noisy: bool = False) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(FEATURES, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.tau = tau
        self.noisy = noisy

    def forward(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return a one-hot choice whose gradient is that of the soft one."""
        scores = self.scores(slot_features(state, new))
        return gumbel_choice(scores, evictable, self.tau, noisy=self.training or self.noisy)

    def scores(self, features: Float[Tensor, "b k f"]) -> Float[Tensor, "b k"]:
        """Score slots by their features; the highest is replaced."""
        precision = next(self.score.parameters()).dtype  # a session's may be bfloat16
        return precise(self.score(features.to(precision)).squeeze(-1))


class PlainEvidence(nn.Module):
    """`Evidence` for networks that were not trained with it: the same features with fixed weights.

    Evicts a template that is similar to the new one, shows little of the object, comes from an
    uncertain mask, or is close to others in time. Each weight is about one by the spread of its
    number, except for the object's mass: a template with almost none of it is evicted first.
    """

    WEIGHTS = (0.0, 2.0, 0.0, -2.0, -0.5, 0.0, -1.0, 0.0)
    """Of the columns of `slot_features`, in their order."""

    def forward(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the evictable slot of the highest score."""
        features = slot_features(state, new)
        return highest(features @ features.new_tensor(self.WEIGHTS), evictable)
