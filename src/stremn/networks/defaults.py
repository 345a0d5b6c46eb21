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


SHIPPED = SessionDefaults(every=2)
"""Best settings of the shipped weights. Sessions have them as defaults too, but memorize every
frame, as in the paper, unless they are opened with `from_pretrained`."""

PAPER = SessionDefaults(policy="learned", size=480, reach=None)
"""Settings of the paper's experiments. Tables have these defaults, but for the size, which is that
of the weights."""

PUBLISHED = SessionDefaults(size=480, reach=None, every=5)
"""Settings of STM and STCN, as in their authors' code."""
