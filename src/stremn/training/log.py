"""Log a training run: CSV file, TensorBoard, progress bar or log lines."""

from __future__ import annotations

import csv
import io
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from stremn.core.atomic_files import writing
from stremn.core.checkpoints import write_atomically

logger = logging.getLogger("stremn.training.fit")


class Means:
    """Running means of named numbers since the last `take`."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, scalars: Mapping[str, float]) -> None:
        """Count one value of each name."""
        for name, value in scalars.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """Return the means and start again."""
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        return means


class CsvLog:
    """A CSV table with a row per `step`, which adds a column for a new name."""

    def __init__(self, path: Path, keep_until: int) -> None:
        """Continue the file at `path`; rows after step `keep_until` will be trained again."""
        self.path = path
        self._rows: list[dict[str, str]] = []
        self._columns: list[str] = ["step"]
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                # A last row without an end was cut off.
                reader = csv.DictReader(line for line in file if line.endswith("\n"))
                self._rows = [row for row in reader if int(row["step"]) <= keep_until]
                self._columns = list(reader.fieldnames or ["step"])
        self._rewrite()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one row; one that the file has of the same step is replaced."""
        repeated = bool(self._rows) and self._rows[-1]["step"] == str(step)
        if repeated:
            self._rows.pop()
        row = {"step": str(step)} | {name: f"{value:.6g}" for name, value in values.items()}
        self._rows.append(row)
        new = [name for name in row if name not in self._columns]
        self._columns += new
        if new or repeated:
            self._rewrite()
            return
        with writing(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _rewrite(self) -> None:
        content = io.StringIO(newline="")
        writer = csv.DictWriter(content, self._columns)
        writer.writeheader()
        writer.writerows(self._rows)
        write_atomically(self.path, lambda file: file.write_bytes(content.getvalue().encode()))


class TensorBoardLog:
    """An event file that TensorBoard reads.

    It is a convenience: an error of the disk ends it with a warning, and the training goes on.
    PyTorch's `SummaryWriter` writes in a thread of its own, which prints such an error as a
    traceback and raises it again at some later call. So this writes in the caller's thread.
    """

    def __init__(self, folder: Path, first: int) -> None:
        """Start a file in `folder`; TensorBoard hides what earlier files have after step `first`.

        Raises:
            ImportError: TensorBoard is not installed.
        """
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from torch.utils.tensorboard import RecordWriter
        from torch.utils.tensorboard.summary import scalar

        self._event, self._scalar = Event, scalar
        self._records: Any = None
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        with self._ended_by_errors():
            folder.mkdir(parents=True, exist_ok=True)
            self._records = RecordWriter((folder / name).open("ab"))
            self._add(file_version="brain.Event:2")
            if first:
                self._add(step=first + 1, session_log=SessionLog(status=SessionLog.START))
            self._records.flush()

    def write(self, section: str, step: int, values: Mapping[str, float]) -> None:
        """Add the values of a step under `section`; do nothing after an error."""
        if self._records is None:
            return
        with self._ended_by_errors():
            for name, value in values.items():
                self._add(step=step, summary=self._scalar(f"{section}/{name}", value))
            self._records.flush()

    def close(self) -> None:
        """Close the file, if an error has not done so."""
        records, self._records = self._records, None
        if records is not None:
            with self._ended_by_errors():
                records.close()

    def _add(self, **content: Any) -> None:
        event = self._event(wall_time=time.time(), **content)
        self._records.write(event.SerializeToString())

    @contextmanager
    def _ended_by_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            logger.warning(
                "TensorBoard's file cannot be written (%s): the training goes on without it; "
                "log.csv and validation.csv hold the same numbers.",
                error.strerror or error,
            )
            records, self._records = self._records, None
            if records is not None:
                with suppress(OSError):  # what is left in its buffer still finds no place
                    records.close()


class TrainingLog:
    """Everything the main process reports; use as a context manager.

    A terminal gets a progress bar (unless `bar` is off), anything else one log line per report.
    Without a folder `out`, that is all.
    """

    def __init__(
        self, out: Path | None, first: int, steps: int, tensorboard: bool, bar: bool = True
    ) -> None:
        self._train = CsvLog(out / "log.csv", first) if out else None
        self._validation = CsvLog(out / "validation.csv", first) if out else None
        self._board = _open_board(out / "tensorboard", first) if out and tensorboard else None
        self._first, self._steps, self._started = first, steps, time.monotonic()
        console = Console(stderr=True)
        self._bar = _progress_bar(console) if bar and console.is_terminal else None
        self._task = self._bar.add_task("", total=steps, completed=first) if self._bar else None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._board is not None:
            self._board.close()

    def advance(self, step: int) -> None:
        """Move the progress bar, if there is one, to `step` steps done."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step)

    def train(self, step: int, values: Mapping[str, float]) -> None:
        """Report the means over the last steps."""
        self._write("train", self._train, step, values)
        text = " ".join(f"{name} {_short(value)}" for name, value in values.items())
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, description=text)
            return
        logger.info("step %d/%d %s left %s", step, self._steps, text, self._remaining(step))

    def validation(self, step: int, values: Mapping[str, float]) -> None:
        """Report the scores of one validation."""
        self._write("validation", self._validation, step, values)
        text = " ".join(f"{name} {_short(value)}" for name, value in values.items())
        logger.info("validation at step %d: %s", step, text)

    def _remaining(self, step: int) -> str:
        done = max(step - self._first, 1)
        seconds = (time.monotonic() - self._started) / done * (self._steps - step)
        return f"{int(seconds // 3600)}h{int(seconds % 3600 // 60):02d}m"

    def _write(
        self, section: str, table: CsvLog | None, step: int, values: Mapping[str, float]
    ) -> None:
        if table is not None:
            table.write(step, values)
        if self._board is not None:
            self._board.write(section, step, values)


def _short(value: float) -> str:
    return f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{value:.4g}"


def _progress_bar(console: Console) -> Progress:
    return Progress(
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=console,
    )


def _open_board(folder: Path, first: int) -> TensorBoardLog | None:
    """Start a TensorBoard file; return None where the package is not installed."""
    try:
        return TensorBoardLog(folder, first)
    except ImportError:
        logger.info('TensorBoard is not installed (pip install "stremn[train]"): CSV log only.')
        return None
