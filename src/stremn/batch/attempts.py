"""Try a job once: run it, log its output, and keep its report even if it fails."""

from __future__ import annotations

import logging
import platform
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

from stremn.batch.reports import LOG, Report, frames_done, read_report
from stremn.core.atomic_files import FolderLock
from stremn.errors import StremnError
from stremn.media.files import make_folder

_GRACE = 30.0  # seconds in which a worker ends whose batch was killed
_TICK = 0.1

Segment = Callable[[list[str]], None]
"""Runs `stremn segment` with these arguments; raises StremnError if that is not possible."""


@dataclass(frozen=True)
class Task:
    """A job that can be sent to a worker in another process or machine.

    Attributes:
        name: of the job.
        arguments: of `stremn segment`, without the output folder.
        folder: for the results.
        segment: what runs them.
    """

    name: str
    arguments: tuple[str, ...]
    folder: Path
    segment: Segment

    def attempt(self) -> None:
        """Run the job, or resume it.

        Raises:
            StremnError: it failed; the report says so too.
            KeyboardInterrupt: it was stopped and can be resumed.
        """
        make_folder(self.folder)
        began = time.monotonic()
        report = self._begun()
        report.save(self.folder)
        status, error = "failed", ""
        try:
            _wait_until_free(self.folder)
            with _logged(self.folder / LOG):
                self.segment([*self.arguments, "-o", str(self.folder), "--resume"])
            status = "done"
        except KeyboardInterrupt:
            status = "stopped"
            raise
        except StremnError as refused:
            error = str(refused)
            raise
        except Exception as broken:
            error = f"{type(broken).__name__}: {broken}"
            with suppress(OSError), (self.folder / LOG).open("a", encoding="utf-8") as log:
                traceback.print_exc(file=log)
            raise StremnError(f"The job {self.name} failed: {error}.") from broken
        finally:
            ended = {"status": status, "error": error, "frames": frames_done(self.folder)}
            ended |= {"seconds": round(time.monotonic() - began, 1)}
            report.model_copy(update=ended).save(self.folder)

    def _begun(self) -> Report:
        before = read_report(self.folder)
        return Report(
            name=self.name,
            arguments=list(self.arguments),
            status="running",
            attempts=1 if before is None else before.attempts + 1,
            frames=0 if before is None else before.frames,
            host=platform.node(),
        )

    def give_up(self, error: str) -> None:
        """Record in the report that the job's worker has died."""
        report = read_report(self.folder) or self._begun()
        update = {"status": "failed", "error": error, "frames": frames_done(self.folder)}
        report.model_copy(update=update).save(self.folder)


def _wait_until_free(folder: Path) -> None:
    """Wait until the worker of a killed batch has stopped; it stops after its current frame.

    Raises:
        StremnError: a run is writing into the folder for longer than that takes.
    """
    deadline = time.monotonic() + _GRACE
    while True:
        try:
            FolderLock(folder).release()
            return
        except StremnError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_TICK)


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Append printed and logged output to a file."""
    with (
        path.open("a", encoding="utf-8") as log,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        handler = logging.StreamHandler(log)
        logging.getLogger("stremn").addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger("stremn").removeHandler(handler)
