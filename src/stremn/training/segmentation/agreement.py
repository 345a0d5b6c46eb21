"""Measure how often a learned rule chooses as each hand-made rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from jaxtyping import Bool
from torch import Tensor

from stremn.memory.choices import Choice, UpdatePolicy
from stremn.memory.state import MemoryState, Template


class Watched:
    """A policy that acts as `policy` and counts where `rules` would have chosen the same.

    Only writes with a choice count: more than one slot to replace, and one of them replaced.
    """

    def __init__(self, policy: UpdatePolicy, rules: Mapping[str, UpdatePolicy]) -> None:
        self._policy = policy
        self._rules = dict(rules)
        self._same: Counter[str] = Counter()
        self._contested = 0

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the choice of the policy that is watched."""
        choice = self._policy(state, new, evictable)
        with torch.no_grad():
            ours = choice.replace.detach() > 0.5
            contested = (evictable.sum(1) > 1) & ours.any(1)
            self._contested += int(contested.sum())
            if bool(contested.any()):
                for name, rule in self._rules.items():
                    theirs = rule(state, new, evictable).replace > 0.5
                    self._same[name] += int((ours & theirs).any(1)[contested].sum())
        return choice

    def scalars(self) -> dict[str, float]:
        """Return the share of choices that agree, as "agrees_<rule>"; nothing if there was no
        choice."""
        if not self._contested:
            return {}
        return {f"agrees_{name}": self._same[name] / self._contested for name in self._rules}
