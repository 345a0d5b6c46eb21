"""Default settings of sessions; no other module repeats these numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SessionDefaults:
    """Default arguments of `SegmentationSession`, which documents them."""

    memory_slots: int = 6
    policy: str = "evidence"
    size: int = 432
    reach: float | None = 0.5
    every: int = 1


SHIPPED = SessionDefaults()
"""What the shipped weights do best with, and what sessions have unless asked otherwise."""

PAPER = SessionDefaults(policy="learned", size=480, reach=None)
"""What the paper measures with: the defaults of the experiments."""

PUBLISHED = SessionDefaults(size=480, reach=None, every=5)
"""What STM and STCN were made for."""
