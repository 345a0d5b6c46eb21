"""What verbs print with. Everything goes to standard error but results asked for by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from stremn.reports import StepResult

console = Console(stderr=True)
output = Console()


def megabytes(count: int) -> str:
    """Return a number of bytes in MB."""
    return f"{count / 1e6:.1f} MB"


class FrameProgress:
    """Progress of a video: frames, frames a second, bytes of memory."""

    def __init__(self, progress: Progress, label: str, total: int | None, start: int) -> None:
        self._progress = progress
        self._start = start
        self._task = progress.add_task(label, total=total, completed=start, speed="", memory="")

    def __call__(self, done: int, result: StepResult) -> None:
        """Show that `done` frames are segmented."""
        task = self._progress.tasks[self._task]
        seconds = task.elapsed or 0.0
        speed = f"{(done - self._start) / seconds:.1f} frames/s" if seconds else ""
        memory = f"memory {megabytes(result.memory.nbytes)}"
        self._progress.update(self._task, completed=done, speed=speed, memory=memory)


@contextmanager
def frame_progress(label: str, total: int | None, start: int = 0) -> Iterator[FrameProgress]:
    """Show a progress bar while a video runs."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TextColumn("{task.fields[memory]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield FrameProgress(progress, label, total, start)
