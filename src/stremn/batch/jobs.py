"""Read jobs, one video each, from a table or a folder, and check them before any begins."""

from __future__ import annotations

import csv
import glob
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from stremn.core.config import Config, build
from stremn.errors import StremnError
from stremn.media.run_folder import is_plain_name

PROMPTS = ("mask", "box", "click", "object")
"""The columns that say what to follow; a row fills one at least."""

_REPEATED = ("object", "format")  # a cell of these may hold several, with ; between them
_RESERVED = ("out", "resume", "overwrite", "help")
_YES = ("yes", "true", "1")
_NO = ("", "no", "false", "0")


Flags = Mapping[str, tuple[str, str | None]]
"""Options without a value: how they are written for yes and, where that is possible, for no."""


class Job(Config):
    """One video to segment; `options` are those of `stremn segment`, by name."""

    name: str
    video: str = Field(min_length=1)
    mask: str = ""
    box: str = ""
    click: str = ""
    object: str = ""
    options: dict[str, str] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not is_plain_name(name) or name.startswith("."):
            raise ValueError(f"a job's results are in a folder of its name, which {name!r} is not")
        return name

    def arguments(self, flags: Flags | None = None) -> list[str]:
        """Return the arguments of `stremn segment`.

        Raises:
            StremnError: an option is that of the whole run, or a flag is neither yes nor no.
        """
        cells = {name: getattr(self, name) for name in PROMPTS} | self.options
        arguments = [self.video]
        for name, cell in cells.items():
            if name in _RESERVED:
                raise StremnError(
                    f"Job {self.name}: {name} cannot be set for a single job; its results are in "
                    "OUT/NAME, and it is resumed automatically."
                )
            if flags is not None and name in flags:
                written = flags[name][0 if self._is_yes(name, cell) else 1]
                arguments += [] if written is None else [written]
            elif cell:
                parts = cell.split(";") if name in _REPEATED else [cell]
                arguments += [word for part in parts for word in (f"--{name}", part.strip())]
        return arguments

    def _is_yes(self, name: str, cell: str) -> bool:
        if cell.lower() not in (*_YES, *_NO):
            raise StremnError(f"Job {self.name}: {name} must be yes or no, got {cell!r}.")
        return cell.lower() in _YES


def read_jobs(path: Path) -> list[Job]:
    """Read jobs from a CSV file with a header: video, one of `PROMPTS`, and any options.

    A column `name` names the jobs, else they are called as their videos. Paths are relative to
    the file's folder.

    Raises:
        StremnError: there is no such file, a column or a cell is missing or wrong, a video or mask
            does not exist; the message names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, skipinitialspace=True)
            columns = [column.strip() for column in table.fieldnames or ()]
            table.fieldnames = columns
            rows = [(table.line_num, row) for row in table]
    except OSError as error:
        raise StremnError(f"The jobs {path} cannot be read: {error.strerror}.") from error
    except (ValueError, csv.Error) as error:
        raise StremnError(f"The jobs {path} are not a table in UTF-8: {error}.") from error
    _check_columns(path, columns)
    jobs = [
        _job(row, f"{path}, line {line}", path.parent) for line, row in rows if any(row.values())
    ]
    return _checked(jobs, str(path), "add a column name")


def jobs_of_folder(videos: Path, masks: Path) -> list[Job]:
    """Return a job for each video of a folder, with the mask of the same name in another folder.

    Videos are files, or folders of images; a mask is a file, or a folder of masks.

    Raises:
        StremnError: a folder is not there or empty, or a video has no mask.
    """
    for folder in (videos, masks):
        if not folder.is_dir():
            raise StremnError(f"There is no folder {folder}.")
    found = sorted(path for path in videos.iterdir() if not path.name.startswith("."))
    by_name: dict[str, list[Path]] = {}
    for mask in sorted(masks.iterdir()):
        by_name.setdefault(mask.name if mask.is_dir() else mask.stem, []).append(mask)
    jobs = []
    for video in found:
        name = video.name if video.is_dir() else video.stem
        fitting = by_name.get(name, [])
        if len(fitting) != 1:
            number = "no mask" if not fitting else f"{len(fitting)} masks"
            raise StremnError(
                f"The video {video} has {number} in {masks}; expected one, such as {name}.png."
            )
        jobs.append(Job(name=name, video=str(video.resolve()), mask=str(fitting[0].resolve())))
    return _checked(jobs, str(videos), "rename one")


def with_options(jobs: Sequence[Job], options: dict[str, str]) -> list[Job]:
    """Return the jobs with options for all; a job's own cells take precedence."""
    for_all = {_option(name): value for name, value in options.items()}
    return [job.model_copy(update=_filled(job, for_all)) for job in jobs]


def _filled(job: Job, for_all: dict[str, str]) -> dict[str, Any]:
    """Return a job's fields with values for all jobs where it has none."""
    rest = {name: value for name, value in for_all.items() if name not in PROMPTS}
    prompts = {name: getattr(job, name) or for_all.get(name, "") for name in PROMPTS}
    return {**prompts, "options": rest | job.options}


def _option(name: str) -> str:
    """Return an option's name without leading dashes, words separated by dashes."""
    return name.strip().removeprefix("--").replace("_", "-")


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if "video" not in columns:
        raise StremnError(
            f"{path} has no column video. Its first line names the columns: video, one of "
            f"{', '.join(PROMPTS)}, and options of stremn segment; it has {', '.join(columns)}."
        )
    if not set(PROMPTS) & set(columns):
        raise StremnError(
            f"{path} needs at least one of the columns {', '.join(PROMPTS)}: they mark the objects."
        )
    twice = [column for column, count in Counter(columns).items() if count > 1]
    if twice:
        raise StremnError(f"{path} has the column {twice[0]!r} twice.")


def _job(row: dict[Any, Any], where: str, folder: Path) -> Job:
    """Turn a row into a job."""
    if None in row:
        raise StremnError(f"{where} has more cells than the first line has columns.")
    cells = {name: (cell or "").strip() for name, cell in row.items()}
    video = cells.pop("video")
    if not video:
        raise StremnError(f"{where} has no video.")
    name = cells.pop("name", "") or Path(video.rstrip("/")).stem
    facts: dict[str, Any] = {"name": name, "video": _found(video, folder, where, "video")}
    facts |= {column: cells.pop(column) for column in PROMPTS if column in cells}
    if facts.get("mask"):
        facts["mask"] = _found(facts["mask"], folder, where, "mask")
    if not any(facts.get(column) for column in PROMPTS):
        raise StremnError(f"{where} marks no object: fill one of {', '.join(PROMPTS)}.")
    facts["options"] = {_option(column): cell for column, cell in cells.items() if cell}
    return build(Job, facts, where)


def _found(text: str, folder: Path, where: str, what: str) -> str:
    """Return an absolute path; addresses are left as they are."""
    if "://" in text:
        return text
    try:
        path = folder.resolve() / Path(text).expanduser()
        if path.exists() or glob.glob(str(path)):  # noqa: PTH207
            return str(path)
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such user, a null
        raise StremnError(f"{where}: {text!r:.80} is no path of a {what}: {error}.") from error
    raise StremnError(f"{where}: there is no {what} {path}.")


def _checked(jobs: list[Job], where: str, advice: str) -> list[Job]:
    if not jobs:
        raise StremnError(f"{where} holds no job.")
    for name, count in Counter(job.name for job in jobs).items():
        if count > 1:
            raise StremnError(
                f"{where} holds {count} jobs called {name}, and each has a folder of its own: "
                f"{advice}."
            )
    return jobs
