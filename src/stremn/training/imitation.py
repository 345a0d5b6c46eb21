"""Teaching `Evidence` its first manners: to choose as a hand-made rule does.

The segmentation loss says little about a single eviction: most of them change nothing that a
clip will show. So the rule is first trained to imitate, on the states that a roll-out under
random eviction visits, and only then, if at all, on the loss.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from stremn.data.clips import ClipBatch
from stremn.errors import StremnError
from stremn.memory import Choice, MemoryState, Template, UpdatePolicy
from stremn.model import STReMN
from stremn.policies import Evidence, RandomDrop, SpreadOccupied, slot_features
from stremn.training.losses import LossReport
from stremn.training.rollout import rollout


@dataclass
class Lessons:
    """A policy that acts as `behavior` and notes what `teacher` would have done instead."""

    behavior: UpdatePolicy
    teacher: UpdatePolicy
    features: list[Float[Tensor, "n k f"]] = field(default_factory=list)
    open: list[Bool[Tensor, "n k"]] = field(default_factory=list)
    answers: list[Int[Tensor, " n"]] = field(default_factory=list)

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the choice of `behavior`."""
        wanted = self.teacher(state, new, evictable).replace
        contested = (evictable.sum(1) > 1) & (wanted.sum(1) > 0.5)
        self.features.append(slot_features(state, new)[contested])
        self.open.append(evictable[contested])
        self.answers.append(wanted[contested].argmax(1))
        return self.behavior(state, new, evictable)


@dataclass(frozen=True)
class Imitation:
    """Cross entropy between the scores of the model's `Evidence` and a teacher's choices."""

    slots: int = 6
    teacher: UpdatePolicy = field(default_factory=SpreadOccupied)

    def __call__(self, model: STReMN, batch: ClipBatch, progress: float) -> LossReport:
        """Return the loss of a batch of clips, with the share of choices that agree.

        Raises StremnError if the clips evict nothing.
        """
        lessons = Lessons(RandomDrop(seed=None), self.teacher)
        with torch.no_grad():
            rollout(model, batch, slots=self.slots, policy=lessons)
        rule = model.policies["evidence"]
        assert isinstance(rule, Evidence)  # built so
        answers = torch.cat(lessons.answers)
        if not len(answers):
            raise StremnError(
                f"Nothing was evicted from {self.slots} slots in clips of {batch.frames.shape[1]} "
                "frames, so there is no choice to imitate. Give the stage 3 slots or more, and "
                "at least two frames more than slots."
            )
        scores = rule.scores(torch.cat(lessons.features))
        scores = scores.masked_fill(~torch.cat(lessons.open), -torch.inf)
        loss = F.cross_entropy(scores.float(), answers)
        agreement = float((scores.argmax(1) == answers).float().mean())
        return LossReport(loss, {"agreement": agreement, "evictions": float(len(answers))})
