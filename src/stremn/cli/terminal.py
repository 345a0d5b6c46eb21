"""Printing and progress bars. Messages go to standard error, results to standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO, cast

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from stremn.core.signals import stop_requests

if TYPE_CHECKING:
    from stremn.segmentation.reports import StepResult

SequenceWatcher = Callable[[str, int, int], None]
"""Called with (sequence, frames done, frames in all)."""


class _StandardError:
    """Standard error that ignores write errors.

    A closed terminal, a closed pipe or a full disk does not end a run.
    """

    def write(self, text: str) -> int:
        with suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


console = Console(file=cast(TextIO, _StandardError()))
output = Console()


_LABEL_LENGTH = 18  # so that a progress bar fits into 80 columns


def say(text: str) -> None:
    """Print a message to standard error without markup, colors or added line breaks."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def show(text: str) -> None:
    """Print a result to standard output without markup, colors or added line breaks."""
    output.print(text, markup=False, highlight=False, soft_wrap=True)


def megabytes(count: int) -> str:
    """Return a number of bytes in MB."""
    return f"{count / 1e6:.1f} MB"


class _LogLines:
    """Decides when to print a progress line, where no progress bar can be drawn."""

    seconds = 5.0

    def __init__(self) -> None:
        self._last = monotonic()

    def due(self) -> bool:
        now = monotonic()
        if console.is_terminal or now - self._last < self.seconds:
            return False
        self._last = now
        return True


def log_lines() -> _LogLines:
    """Return a function that says when to print a progress line."""
    return _LogLines()


class FrameProgress:
    """Progress of a video: frames, frames per second, bytes of memory."""

    def __init__(self, progress: Progress, label: str, total: int | None, start: int) -> None:
        self._progress = progress
        self._start = start
        self._log = _LogLines()
        self._task = progress.add_task(label, total=total, completed=start, speed="", memory="")

    def __call__(self, done: int, result: StepResult) -> None:
        """Show that `done` frames are segmented."""
        task = self._progress.tasks[self._task]
        seconds = task.elapsed or 0.0
        speed = f"{(done - self._start) / seconds:.1f} frames/s" if seconds else ""
        memory = f"memory {megabytes(result.memory.nbytes)}"
        if self._log.due():
            of = "" if task.total is None else f" of {task.total:.0f}"
            say(f"{task.description}: {done}{of} frames, {speed}, {memory}")
        self._progress.update(self._task, completed=done, speed=speed, memory=memory)


@contextmanager
def frame_progress(label: str, total: int | None, start: int = 0) -> Iterator[FrameProgress]:
    """Show a progress bar while a video runs; `label` is its path, shown by its last part."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TextColumn("{task.fields[memory]}"),
        TimeElapsedColumn(),
        TextColumn("so far,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=console) as progress:
        yield FrameProgress(progress, _short(label), total, start)


@contextmanager
def work_progress(label: str) -> Iterator[Callable[[str, int, int | None], None]]:
    """Show a progress bar of a video's frames; `label` is its path, shown by its last part.

    Yields a function to call with what is done to the frames (such as "observed"), how many are
    done, and how many there are or None.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, TaskID] = {}
        log = _LogLines()

        def watch(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(f"{_short(label)} {what}", total=total)
            progress.update(tasks[what], completed=done, total=total)
            if log.due():
                of = "" if total is None else f" of {total}"
                say(f"{_short(label)}: {what} {done}{of} frames")

        yield watch


LiveWatcher = Callable[[int, int, int], str]
"""Called with (frames done, frames dropped, bytes of memory); returns that in words."""


@contextmanager
def live_progress(label: str) -> Iterator[LiveWatcher]:
    """Show how a live source is followed; `label` is its path or address."""
    columns = (
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(_short(label), total=None, words="")
        log = _LogLines()

        def watch(done: int, dropped: int, memory: int) -> str:
            seconds = progress.tasks[0].elapsed or 0.0
            speed = f"{done / seconds:.1f} frames/s" if seconds else ""
            frames = "1 frame" if done == 1 else f"{done} frames"
            words = f"{frames}, {speed}, {dropped} dropped, memory {megabytes(memory)}"
            progress.update(task, words=words)
            if log.due():
                say(f"{_short(label)}: {words}")
            return words

        yield watch


@contextmanager
def step_progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar; yields a function to call with (steps done, steps in all)."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("so far,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=None)
        log = _LogLines()

        def watch(done: int, steps: int) -> None:
            progress.update(task, completed=done, total=steps)
            if log.due():
                say(f"{label}: {done} of {steps} steps")

        yield watch


@contextmanager
def stopping_between_frames() -> Iterator[Callable[[], None]]:
    """Delay Ctrl-C, SIGTERM and SIGHUP to the end of a frame; a second one stops at once.

    Yields a function to call after each frame: it raises KeyboardInterrupt after a signal.
    """
    asked = Event()

    def ask(number: int) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        say("Stopping after this frame. Press Ctrl-C again to stop at once.")

    def check() -> None:
        if asked.is_set():
            raise KeyboardInterrupt

    with stop_requests(ask):
        yield check


@contextmanager
def sequence_progress() -> Iterator[SequenceWatcher]:
    """Show the current sequence and its progress; print a line for each finished one."""
    with console.status("reading") as status:

        def watch(sequence: str, done: int, total: int) -> None:
            status.update(escape(f"{sequence}: {done} of {total} frames"))
            if done == total:
                say(f"{sequence}: {done} frames")

        yield watch


def _short(label: str) -> str:
    name = label.rstrip("/").rpartition("/")[2]
    return name if len(name) <= _LABEL_LENGTH else f"…{name[1 - _LABEL_LENGTH :]}"
