"""Looking at every item of a data set once, with all cores, before a training starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

FoundT = TypeVar("FoundT")

Told = Callable[[int, int], None]
"""Called with how many items were checked, and how many there are."""


def look_at_each(
    look: Callable[[int], FoundT], count: int, told: Told | None = None
) -> Iterator[FoundT]:
    """Yield what `look` finds at 0 ... count - 1, in this order; decoding runs in threads."""
    with ThreadPoolExecutor() as pool:
        for index, found in enumerate(pool.map(look, range(count)), start=1):
            yield found
            if told is not None:
                told(index, count)
