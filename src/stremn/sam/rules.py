"""Check the replacement rule and the number of slots of a SAM session."""

from __future__ import annotations

from stremn.core.arguments import whole_number
from stremn.errors import StremnError
from stremn.memory.choices import UpdatePolicy
from stremn.memory.policies import POLICIES, Append, PlainEvidence, build_policy
from stremn.segmentation.session_options import MOST_SLOTS

SAM_POLICY = "oldest"
"""The rule that SAM models were trained with: the latest frames."""

SAM_POLICIES = tuple(name for name in POLICIES if name != "append")
"""Rules that a session takes: all but the one that needs a memory that grows."""


def sam_rule(policy: str | UpdatePolicy, seed: int = 0) -> UpdatePolicy:
    """Return a rule; these models have no weights for `evidence`, which is weighed by hand.

    Args:
        policy: name of a rule, or the rule itself.
        seed: of the random rules.

    Raises:
        StremnError: no such rule, or the one that needs a memory that grows.
    """
    if not isinstance(policy, str) and not callable(policy):
        raise StremnError(
            f"policy must be the name of a rule or a rule, got {type(policy).__name__}. Choose one "
            f"of: {', '.join(SAM_POLICIES)}."
        )
    if policy == "evidence":
        return PlainEvidence()
    rule = build_policy(policy, seed) if isinstance(policy, str) else policy
    if isinstance(rule, Append):
        raise StremnError(
            "The rule 'append' keeps all and needs a memory that grows; that of a SAM model has "
            f"K slots. Choose one of: {', '.join(SAM_POLICIES)}."
        )
    return rule


def checked_slots(slots: int) -> int:
    """Return K.

    Raises:
        StremnError: it is no whole number above 0.
    """
    return whole_number(slots, "memory_slots (K)", 1, MOST_SLOTS, "7 is SAM 2's.")
