"""Make calls on an object atomic: one at a time, each changes it completely or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch

from stremn.errors import StremnError

Owner = TypeVar("Owner")
P = ParamSpec("P")
R = TypeVar("R")


class GuardedCalls:
    """Run one call at a time on an object, and restore its attributes if the call fails.

    Attributes are restored by reference. Code that changes something in place calls `changing`
    first: if that change is interrupted, it cannot be undone, and every later call is refused.
    """

    def __init__(self, attributes: tuple[str, ...]) -> None:
        self._attributes = attributes
        self._lock = threading.Lock()
        self._inside: int | None = None
        self._changing = self._torn = False

    @contextmanager
    def call(self, owner: object) -> Iterator[None]:
        """Run the block as one call on `owner`; another thread's call waits for its end.

        Raises:
            StremnError: the block of the same thread is not at its end (a rule that calls its own
                session), or an earlier call was interrupted in the middle of a change.
        """
        if self._inside == threading.get_ident():
            raise StremnError(
                "A session cannot be called from within its own call, for example from a "
                "replacement rule. Call it after step has returned."
            )
        with self._lock:
            if self._torn:
                raise StremnError(
                    "This session was interrupted while its memory was written, so the memory "
                    "cannot be relied on. Load the session from where it was saved, or start "
                    "another one."
                )
            before = {name: getattr(owner, name) for name in self._attributes}
            self._inside = threading.get_ident()
            try:
                yield
            except BaseException:
                self._torn = self._changing
                for name, value in before.items():
                    setattr(owner, name, value)
                raise
            finally:
                self._inside, self._changing = None, False

    def changing(self) -> None:
        """Mark that the rest of this call changes something in place."""
        self._changing = True


def guarded(method: Callable[Concatenate[Owner, P], R]) -> Callable[Concatenate[Owner, P], R]:
    """Make a method one call of its object's `_calls` (see `GuardedCalls`), without gradients."""

    @wraps(method)
    def call(self: Owner, /, *args: P.args, **kwargs: P.kwargs) -> R:
        calls: GuardedCalls = self._calls  # type: ignore[attr-defined]
        with calls.call(self), torch.inference_mode():
            return method(self, *args, **kwargs)

    return call
