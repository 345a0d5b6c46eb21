"""Read live videos: frames that arrive while the model is busy are dropped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from stremn.media.frames import FrameSource, Shot
from stremn.media.pace import RATE_IF_UNKNOWN

_TICK = 0.1  # seconds after which a waiting iteration looks whether it was ended
_PATIENCE = 2.0  # seconds to wait for a source that is still being read


class Newest(Iterator[Shot]):
    """Iterate over arriving pictures; those that arrive while the consumer is busy are dropped.

    The first picture is read when it is asked for. From the second on a thread reads without a
    break and keeps one picture, the newest. Errors come out of the iteration after the picture
    before them.

    Attributes:
        dropped: pictures that were read and never given out.
    """

    def __init__(self, shots: Iterator[Shot]) -> None:
        self.dropped = 0
        self._shots = shots
        self._first = True
        self._pending: Shot | None = None
        self._error: BaseException | None = None
        self._exhausted = False
        self._ended = False
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None

    def __next__(self) -> Shot:
        """Return the newest picture not returned before; wait for one if there is none."""
        if self._first:
            self._first = False
            return next(self._shots)
        if self._thread is None:
            self._thread = threading.Thread(target=self._read, name="stremn-live", daemon=True)
            self._thread.start()
        with self._news:
            while not self._ended:
                if self._pending is not None:
                    shot, self._pending = self._pending, None
                    return shot
                if self._error is not None:
                    raise self._error
                if self._exhausted:
                    break
                self._news.wait(_TICK)
        raise StopIteration

    def end(self) -> None:
        """Stop returning pictures; it may be called from a signal handler."""
        self._ended = True

    def close(self) -> None:
        """End, and release the source: at once, or as soon as it gives its next picture."""
        self._ended = True
        if self._thread is None:
            self._release()
        else:
            self._thread.join(_PATIENCE)

    def _read(self) -> None:
        """Keep the newest picture until the source or the iteration ends."""
        try:
            for shot in self._shots:
                with self._news:
                    if self._ended:
                        return
                    self.dropped += self._pending is not None
                    self._pending = shot
                    self._news.notify()
        except BaseException as error:
            self._error = error
        finally:
            self._exhausted = True
            with suppress(Exception):
                self._release()
            with self._news:
                self._news.notify()

    def _release(self) -> None:
        close = getattr(self._shots, "close", None)
        if close is not None:
            close()


class Live(NamedTuple):
    """A live video. Frames are numbered in the order in which they are returned."""

    frames: FrameSource
    newest: Newest


def as_it_happens(frames: FrameSource) -> Live:
    """Return a video whose frames are dropped when they arrive faster than they are read.

    A recording is played at its own rate, images at `RATE_IF_UNKNOWN`. Each frame has the time at
    which it came.

    Args:
        frames: the video, not iterated yet; it is closed with the one that is returned.
    """
    rate = frames.fps or RATE_IF_UNKNOWN
    newest = Newest(_shots(frames) if frames.live else played(frames, rate))
    live = FrameSource(
        newest,
        label=frames.label,
        fps=rate,
        live=True,
        pixel_aspect=frames.pixel_aspect,
        sound=frames.sound,
    )
    return Live(live, newest)


def played(
    frames: FrameSource,
    rate: float,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[Shot]:
    """Yield the frames of a recording at its own rate; the second frame starts the clock.

    Args:
        frames: the recording; it is closed in the end.
        rate: frames per second, where the recording has no times.
        clock: tells seconds.
        wait: waits some seconds.
    """
    start = 0.0
    for number, shot in enumerate(_shots(frames)):
        at = number / rate if shot.time is None else shot.time
        if number:
            wait(max(0.0, start + at - clock()))
        yield Shot(shot.image, at)
        if not number:
            start = clock() - at


def _shots(frames: FrameSource) -> Iterator[Shot]:
    try:
        for frame in frames:
            yield Shot(frame.image, frame.time)
    finally:
        frames.close()
