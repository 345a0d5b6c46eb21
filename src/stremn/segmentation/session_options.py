"""Check the arguments of a session."""

from __future__ import annotations

import math

from stremn.core.arguments import real_number, whole_number
from stremn.core.hardware import pick_device, pick_precision
from stremn.errors import StremnError
from stremn.memory.choices import UpdatePolicy
from stremn.memory.policies import POLICIES, build_policy
from stremn.networks.defaults import SHIPPED
from stremn.networks.model import STReMN

MOST_SLOTS = 65_536
"""K, at most: more is a mistake, and no machine has the memory."""

LARGEST_SIZE = 8_192
"""Working size, at most, in pixels."""

LARGEST_SEED = 2**40
"""Seed of the random rules, at most: PyTorch's generators take 64 bits."""

LARGEST_FRAME = 2**62
"""Index of a frame, at most."""

GROWTH = 8
"""Slots that STM's growing memory ("append") gains when all are taken."""


def check_model(model: object) -> None:
    """Raise StremnError unless this is a network."""
    if not isinstance(model, STReMN):
        raise StremnError(
            f"model must be a network (STReMN), got {type(model).__name__}. Open names, files "
            "and what load_model returns with SegmentationSession.from_pretrained."
        )


def checked_pin(frame: int, pinned: bool) -> int:
    """Return the index of a frame to pin or unpin after checking both arguments."""
    frame = whole_number(frame, "frame", 0, LARGEST_FRAME)
    if not isinstance(pinned, bool):
        raise StremnError(f"pinned must be True or False, got {type(pinned).__name__}.")
    return frame


def checked_numbers(
    memory_slots: int, size: int, every: int, reach: float | None
) -> tuple[int, int, int, float | None]:
    """Return K, size, `every` and reach after checking them; an infinite reach becomes None.

    Raises:
        StremnError: one of them is out of its range, or no number.
    """
    slots = whole_number(memory_slots, "memory_slots (K)", 1, MOST_SLOTS, "The paper uses 6.")
    size = whole_number(
        size, "size", 64, LARGEST_SIZE, f"It is in pixels; {SHIPPED.size} is usual."
    )
    every = whole_number(every, "every", 1, LARGEST_FRAME, "1 memorizes all frames.")
    if reach is not None:
        reach = real_number(reach, "reach", f"{SHIPPED.reach} is usual; None has no limit.")
        if reach < 0:
            raise StremnError(
                f"reach must be 0 or more (in sizes of the object) or None, got {reach}. "
                f"{SHIPPED.reach} is usual."
            )
    return slots, size, every, None if reach == math.inf else reach


def check_options(
    *,
    memory_slots: int,
    size: int,
    every: int,
    reach: float | None,
    policy: str,
    device: str,
    precision: str,
) -> None:
    """Refuse wrong options before a model is loaded.

    Raises:
        StremnError: as `SegmentationSession` does.
    """
    checked_numbers(memory_slots, size, every, reach)
    if policy not in POLICIES:
        build_policy(policy)
    pick_precision(precision, pick_device(device))


def resolved_policy(policy: str | UpdatePolicy, model: STReMN, seed: int) -> UpdatePolicy:
    """Return the rule; for a name, the model's own rule if it has one.

    Raises:
        StremnError: there is no such rule, or it is neither a name nor a rule.
    """
    if isinstance(policy, str):
        return model.policies[policy] if policy in model.policies else build_policy(policy, seed)
    if callable(policy):
        return policy
    raise StremnError(
        f"policy must be the name of a rule or a rule, got {type(policy).__name__}. Choose one "
        f"of: {', '.join(POLICIES)}."
    )
