"""Stops work that a visitor no longer waits for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event

from stremn.errors import StremnError


class StoppedError(StremnError):
    """A visitor stopped or paused the work."""


class Stops:
    """Of each visitor's running work, whether it shall stop. Safe to use from several threads."""

    def __init__(self) -> None:
        self._events: dict[str, Event] = {}

    @contextmanager
    def running(self, visitor: str) -> Iterator[Callable[[], None]]:
        """Mark work of a visitor as running.

        Yields a function to call now and then: it raises StoppedError once `stop` was called.
        """
        event = self._events[visitor] = Event()

        def check() -> None:
            if event.is_set():
                raise StoppedError("Stopped.")

        try:
            yield check
        finally:
            if self._events.get(visitor) is event:
                del self._events[visitor]

    def stop(self, visitor: str) -> None:
        """Stop the visitor's work, if any is running."""
        if (event := self._events.get(visitor)) is not None:
            event.set()
