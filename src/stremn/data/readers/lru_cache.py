"""An LRU cache of items that were read."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ItemT = TypeVar("ItemT")


class Recent(Generic[KeyT, ItemT]):
    """Keeps the items used last; evicts the one used longest ago.

    limit: largest sum of the sizes kept; 0 keeps nothing. size: of an item, in the limit's unit.
    Threads may share one; a copy for another process starts empty.
    """

    def __init__(self, limit: int, size: Callable[[ItemT], int]) -> None:
        self._limit = limit
        self._size = size
        self._used = 0
        self._kept: OrderedDict[KeyT, ItemT] = OrderedDict()
        self._lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Recent, (self._limit, self._size)

    def get(self, key: KeyT, read: Callable[[], ItemT]) -> ItemT:
        """Return the item of `key`, from `read` if it is not here."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        item = read()
        with self._lock:
            self._used += self._size(item) if key not in self._kept else 0
            self._kept[key] = item
            while self._used > self._limit:
                _, old = self._kept.popitem(last=False)
                self._used -= self._size(old)
        return item
