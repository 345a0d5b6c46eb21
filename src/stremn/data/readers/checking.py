"""Looking at every item of a data set once, with all cores, before a training starts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

FoundT = TypeVar("FoundT")

TOLD_EVERY = 10.0
"""Seconds between two lines about a check."""

Told = Callable[[int, int], None]
"""Called with how many items were checked, and how many there are."""


def telling(what: str, logger: logging.Logger) -> Told:
    """Return a function that logs the progress of a check from time to time."""
    last = time.monotonic()

    def told(done: int, count: int) -> None:
        nonlocal last
        if time.monotonic() - last > TOLD_EVERY:
            last = time.monotonic()
            logger.info("checking %s: %d of %d files read", what, done, count)

    return told


def look_at_each(
    look: Callable[[int], FoundT], count: int, told: Told | None = None
) -> Iterator[FoundT]:
    """Yield what `look` finds at 0 ... count - 1, in this order; decoding runs in threads."""
    with ThreadPoolExecutor() as pool:
        for index, found in enumerate(pool.map(look, range(count)), start=1):
            yield found
            if told is not None:
                told(index, count)
