"""A job's report: `job.json` in its folder, with its status, for people and for resuming."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from stremn.core.config import Config, build, read_json
from stremn.media.files import make_folder, write_whole

REPORT = "job.json"
LOG = "log.txt"
Status = Literal["running", "done", "failed", "stopped"]
_TAIL = 1 << 20  # bytes; a row of memory.json is far shorter


class Report(Config):
    """Status of a job.

    Attributes:
        name: of the job.
        arguments: of `stremn segment`.
        status: failed jobs are tried again in the next run, stopped ones are resumed.
        attempts: number of times it was started.
        frames: how many are complete.
        seconds: duration of the last attempt.
        host: where that was.
        error: why it failed, or "".
    """

    name: str
    arguments: list[str]
    status: Status
    attempts: int = 1
    frames: int = 0
    seconds: float = 0.0
    host: str = ""
    error: str = ""

    def save(self, folder: Path) -> None:
        """Write it into the job's folder, in one move."""
        write_whole(make_folder(folder) / REPORT, self.model_dump_json(indent=1).encode() + b"\n")


def read_report(folder: Path) -> Report | None:
    """Return the report in a job's folder; None if there is none.

    Raises:
        StremnError: it is damaged.
    """
    path = folder / REPORT
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    return build(Report, read_json(content, str(path)), str(path))


def frames_done(folder: Path) -> int:
    """Return how many frames of a job are complete, from its `memory.json`; 0 if it is damaged."""
    try:
        with (folder / "memory.json").open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            lines = file.read().splitlines()
        rows = [line for line in lines if line.startswith(b"{")]
        first: dict[str, Any] = _first_row(folder)
        last: dict[str, Any] = json.loads(rows[-1].rstrip(b","))
        return int(last["frame"]) - int(first["frame"]) + 1
    except (OSError, ValueError, LookupError, TypeError, OverflowError):
        return 0


def _first_row(folder: Path) -> dict[str, Any]:
    with (folder / "memory.json").open(encoding="utf-8") as file:
        file.readline()
        return json.loads(file.readline().rstrip().rstrip(","))
