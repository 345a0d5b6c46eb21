"""All replacement rules by name (Section 3.2, Table 1).

Every one is an `UpdatePolicy`: (state, new template, evictable slots) -> `Choice`. `Learned` is
the paper's (Eq 1-3); rules A-F are its Table 1; `Append` is the growing memory of STM; the rest
are for comparison. They are deterministic, given the state: random ones draw from (seed, frame),
so a run that stops and resumes makes the same choices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stremn.errors import StremnError
from stremn.memory.choices import UpdatePolicy
from stremn.memory.learned_policies import Evidence, Learned, PlainEvidence
from stremn.memory.more_policies import (
    Diversity,
    EmptyFirst,
    LeastUsed,
    Spread,
    SpreadOccupied,
    UpperConfidence,
)
from stremn.memory.paper_policies import (
    Append,
    FirstAndLast,
    MostSimilar,
    Newest,
    Oldest,
    RandomDrop,
    RandomSelect,
)
from stremn.moved import moved_names

__all__ = [
    "POLICIES",
    "Append",
    "Diversity",
    "EmptyFirst",
    "Evidence",
    "FirstAndLast",
    "Learned",
    "LeastUsed",
    "MostSimilar",
    "Newest",
    "Oldest",
    "PlainEvidence",
    "RandomDrop",
    "RandomSelect",
    "Spread",
    "SpreadOccupied",
    "UpperConfidence",
    "build_policy",
]

POLICIES: dict[str, Callable[[int], UpdatePolicy]] = {
    "learned": lambda seed: Learned().eval(),
    "evidence": lambda seed: Evidence().eval(),
    "oldest": lambda seed: Oldest(),
    "newest": lambda seed: Newest(),
    "random-drop": RandomDrop,
    "random-select": RandomSelect,
    "first-and-last": lambda seed: FirstAndLast(),
    "most-similar": lambda seed: MostSimilar(),
    "append": lambda seed: Append(),
    "spread": lambda seed: Spread(),
    "empty-first": lambda seed: EmptyFirst(),
    "spread-occupied": lambda seed: SpreadOccupied(),
    "ucb": lambda seed: UpperConfidence(),
    "least-used": lambda seed: LeastUsed(),
    "diversity": lambda seed: Diversity(),
}
"""Every rule by name. Rules A-F of Table 1 are oldest, newest, random-drop, random-select,
first-and-last, most-similar."""


def build_policy(name: str, seed: int = 0) -> UpdatePolicy:
    """Return the rule called `name`; `seed` matters to the random ones alone."""
    if name not in POLICIES:
        raise StremnError(f"There is no policy {name!r}. Choose one of: {', '.join(POLICIES)}.")
    return POLICIES[name](seed)


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
