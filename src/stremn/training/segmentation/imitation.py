"""Pretrain a learned replacement rule by imitation of a hand-made one.

The segmentation loss says little about a single eviction: most of them change nothing that a
clip will show. So the rule is first trained to imitate, on the states that a roll-out under
random eviction visits, and only then, if at all, on the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from stremn.data.clips.clip import ClipBatch
from stremn.errors import StremnError
from stremn.memory.choices import Choice, UpdatePolicy
from stremn.memory.policies import Evidence, RandomDrop, SpreadOccupied
from stremn.memory.similarity import similarity
from stremn.memory.slot_features import slot_features
from stremn.memory.state import MemoryState, Template
from stremn.moved import earlier_fields
from stremn.networks.defaults import PAPER
from stremn.networks.model import STReMN
from stremn.training.loss_report import LossReport
from stremn.training.segmentation.rollout import rollout

Taught = Literal["evidence", "learned"]
"""Rules of a model that can be taught."""

SCALE = 20.0
"""What cosines are multiplied with before the softmax: those of templates differ by hundredths."""

Scoring = Callable[[MemoryState, Template], Float[Tensor, "b k"]]
"""How a rule scores slots; the highest is replaced."""


@dataclass
class Lessons:
    """A policy that acts as `behavior`, and records scores and the choices of `teacher`."""

    behavior: UpdatePolicy
    teacher: UpdatePolicy
    rule: Scoring
    scores: list[Float[Tensor, "n k"]] = field(default_factory=list)
    answers: list[Int[Tensor, " n"]] = field(default_factory=list)

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the choice of `behavior`."""
        wanted = self.teacher(state, new, evictable).replace
        contested = (evictable.sum(1) > 1) & (wanted.sum(1) > 0.5)
        with torch.enable_grad():
            scores = self.rule(state, new).float().masked_fill(~evictable, -torch.inf)
            self.scores.append(scores[contested])
        self.answers.append(wanted[contested].argmax(1))
        return self.behavior(state, new, evictable)


@earlier_fields(slots="memory_slots")
@dataclass(frozen=True)
class Imitation:
    """Cross entropy between the scores of a rule of the model and a teacher's choices.

    taught: "evidence", whose scores are a network's; or "learned", whose scores are Eq 1, times
    `SCALE`: then update keys learn, and gradients go through the clip.
    """

    memory_slots: int = PAPER.memory_slots
    teacher: UpdatePolicy = field(default_factory=SpreadOccupied)
    taught: Taught = "evidence"

    def __call__(self, model: STReMN, batch: ClipBatch, progress: float) -> LossReport:
        """Return the loss of a batch of clips, with the share of choices that agree.

        Raises StremnError if the clips evict nothing.
        """
        lessons = Lessons(RandomDrop(seed=None), self.teacher, self._scores(model))
        with torch.set_grad_enabled(self.taught == "learned"):
            rollout(model, batch, memory_slots=self.memory_slots, policy=lessons)
        answers = torch.cat(lessons.answers)
        if not len(answers):
            raise StremnError(
                f"Nothing was evicted from {self.memory_slots} slots in clips of "
                f"{batch.frames.shape[1]} frames, so there is no choice to imitate. Give the "
                "stage 3 memory slots or more, and at least two frames more than slots."
            )
        scores = torch.cat(lessons.scores)
        if torch.is_grad_enabled() and not scores.requires_grad:
            weights = "update_key" if self.taught == "learned" else "policies.evidence"
            raise StremnError(
                f"The rule {self.taught!r} cannot imitate, because none of its weights is trained. "
                f"Set train.lr_multipliers of {weights} above 0."
            )
        loss = F.cross_entropy(scores, answers)
        agreement = float((scores.argmax(1) == answers).float().mean())
        return LossReport(loss, {"agreement": agreement, "evictions": float(len(answers))})

    def _scores(self, model: STReMN) -> Scoring:
        if self.taught == "learned":
            return lambda state, new: SCALE * similarity(new.compared, state.compared)
        rule = model.policies["evidence"]
        assert isinstance(rule, Evidence)  # built so
        return lambda state, new: rule.scores(slot_features(state, new))
