"""Read ahead of the model and write behind it, in threads.

Both are bounded, so memory does not grow with the length of the video.
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, NamedTuple, Self, TypeVar

from stremn.errors import StremnError

logger = logging.getLogger(__name__)

T = TypeVar("T")


class _Failure(NamedTuple):
    error: BaseException


class _End(NamedTuple):
    pass


class ReadAhead(Generic[T]):
    """Iterate something in a thread, at most `depth` items ahead.

    Errors come out of the iteration after the items before them. Use it as a context manager, or
    close it, so that the thread ends when the iteration is left early.
    """

    def __init__(self, items: Iterable[T], depth: int = 4) -> None:
        if depth < 1:
            raise StremnError(f"The read-ahead depth must be 1 or more, got {depth}.")
        self._queue: queue.Queue[T | _Failure | _End] = queue.Queue(maxsize=depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._fill, args=(items,), name="stremn-read-ahead", daemon=True
        )
        self._thread.start()

    def _fill(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                if not self._offer(item):
                    return
            self._offer(_End())
        except BaseException as error:
            self._offer(_Failure(error))

    def _offer(self, item: T | _Failure | _End) -> bool:
        """Put an item as soon as there is room; False once closed."""
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[T]:
        """Yield the items in order."""
        while not self._stop.is_set():
            item = self._queue.get()
            if isinstance(item, _End):
                break
            if isinstance(item, _Failure):
                raise item.error
            yield item
        self.close()

    def close(self) -> None:
        """Stop the thread and wait for it; safe to call twice."""
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class WriteBehind(Generic[T]):
    """Call `write(item)` in a thread, at most `depth` items behind.

    An error in the thread stops the writing and is raised by the next `put`, `flush` or `close`.
    """

    def __init__(self, write: Callable[[T], None], depth: int = 4) -> None:
        if depth < 1:
            raise StremnError(f"The write-behind depth must be 1 or more, got {depth}.")
        self._write = write
        self._queue: queue.Queue[T | _End] = queue.Queue(maxsize=depth)
        self._error: BaseException | None = None
        self._told = False
        self._closed = False
        self._thread = threading.Thread(target=self._drain, name="stremn-write-behind", daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        while True:
            item = self._queue.get()
            try:
                if isinstance(item, _End):
                    return
                if self._error is None:
                    self._write(item)
            except BaseException as error:
                self._error = error
            finally:
                self._queue.task_done()

    def put(self, item: T) -> None:
        """Hand over one item, once fewer than `depth` items wait to be written."""
        self._raise_error()
        self._queue.put(item)

    def flush(self) -> None:
        """Wait until everything handed over is written."""
        self._queue.join()
        self._raise_error()

    def close(self) -> None:
        """Write what is left and stop the thread; safe to call twice."""
        if not self._closed:
            self._closed = True
            self._queue.put(_End())
            self._thread.join()
        if not self._told:
            self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            self._told = True
            raise self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        except Exception as late:
            logger.warning("Writing failed as well: %s", late)
