"""Handle signals that ask the process to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_requests(ask: Callable[[int], None]) -> Iterator[None]:
    """Call `ask` with the number of each signal to stop instead of being stopped by it.

    These are SIGINT, SIGTERM and, unless it is ignored (nohup), SIGHUP: the terminal was closed.

    Outside the main thread, where Python handles no signals, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = stopping_signals()
    before = {number: signal.signal(number, lambda number, _: ask(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopping_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask this process to stop."""
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    if hang_up is None or signal.getsignal(hang_up) is signal.SIG_IGN:
        return signal.SIGINT, signal.SIGTERM
    return signal.SIGINT, signal.SIGTERM, hang_up
