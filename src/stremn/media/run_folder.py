"""Manage a run's output folder: its settings, its progress, and the removal of its files."""

import glob
import json
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import ConfigDict, Field

from stremn.core.config import Config, build, read_json
from stremn.errors import StremnError
from stremn.media.files import iterate_rows, make_folder, write_whole, writing
from stremn.moved import with_current_facts

Existing = Literal["refuse", "resume", "replace"]
"""What to do with an earlier run in a folder."""

ROWS = "memory.json"
"""The record of a run: a row for each of its frames that is complete."""

TABLE = "objects.csv"
"""Where each object is in each frame."""


LATER = "later-formats.json"
"""Formats that were written when the run was over, in its `.resume`."""

PROGRESS = "progress.json"
"""How far a run is, in its `.resume`."""


class Progress(Config):
    """Progress of a run: complete frames, and the session's state after them."""

    model_config = ConfigDict(strict=True)

    frames: Annotated[int, Field(ge=0)]
    finished: bool
    state: str | None
    settings: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Write it into a run's `.resume` folder; raises StremnError if that is not possible."""
        write_whole(folder / PROGRESS, self.model_dump_json(indent=1).encode())


def earlier_run(out: Path, existing: Existing, settings: Mapping[str, Any]) -> Progress | None:
    """Return the progress of the run in `out` that is to be resumed; None if a new one starts.

    Args:
        out: output folder.
        existing: what to do with an earlier run.
        settings: JSON values that a resumed run must share with the interrupted one.

    Raises:
        StremnError: an earlier run is in the way, had other settings, or is damaged.
    """
    rows = _count_rows(out / ROWS)
    if not rows or existing == "replace":
        return None
    if existing == "refuse":
        raise StremnError(
            f"{out} holds {rows} frames of an earlier run. Add --resume to continue it, "
            "--overwrite to replace it, or choose another output folder."
        )
    made = _read_progress(out / ".resume", rows)
    before = with_current_facts(made.settings)
    if before != settings:
        keys = sorted(before.keys() | settings.keys())
        key = next(key for key in keys if before.get(key) != settings.get(key))
        raise StremnError(
            f"The run in {out} cannot be continued: it was made with {key} "
            f"{before.get(key)!r}, now {key} is {settings.get(key)!r}. Use the "
            "same settings, or --overwrite to start again."
        )
    return made


def as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they are when they have been written and read again."""
    return json.loads(json.dumps(settings))


def _count_rows(path: Path) -> int:
    return sum(1 for _ in iterate_rows(path)) if path.exists() else 0


def _read_progress(folder: Path, rows: int) -> Progress:
    """Return the progress of a run with `rows` frames in memory.json."""
    path = folder / PROGRESS
    try:
        found = build(Progress, read_json(path.read_bytes(), path.name), path.name)
        if found.frames > rows:
            raise ValueError(f"it counts {found.frames} frames, memory.json {rows}")
        if found.state not in (None, state_name(found.frames)):
            raise ValueError(f"its state is not {state_name(found.frames)}")
    except FileNotFoundError as error:
        raise StremnError(
            f"The run in {folder.parent} cannot be continued, because {path} is gone. Use "
            f"--overwrite to replace its {rows} frames, or choose another output folder."
        ) from error
    except (OSError, ValueError) as error:
        reason = str(error).rstrip(".")
        raise StremnError(
            f"{path} is damaged, so the run cannot be continued: {reason}. Use --overwrite to "
            "start again."
        ) from error
    return found


def state_name(frames: int) -> str:
    """Return the name of the file with a session's state after that many frames."""
    return f"state-{frames:09d}.safetensors"


def refuse_link(folder: Path) -> None:
    """Refuse a folder for results that is a link to another one; raises StremnError."""
    if folder.is_symlink():
        raise StremnError(
            f"{folder} is a link, and results are not written through it. Remove it, or choose "
            "another output folder."
        )


def refuse_others_files(out: Path, patterns: Collection[str]) -> None:
    """Refuse a folder in which no run has begun, if a new one would replace files in it.

    Args:
        out: the folder.
        patterns: glob patterns of the files, `{name}` in place of a frame's name.

    Raises:
        StremnError: there is such a file.
    """
    if (out / ROWS).exists():
        return
    for pattern in patterns:
        for path in out.glob(pattern.replace("{name}", "*")):
            if not path.name.startswith("."):
                raise StremnError(
                    f"{path} is there already, and no run wrote it: results would replace such "
                    "files. Choose another output folder."
                )


def formats_of(out: Path) -> list[str]:
    """Return the names of the formats that the run in `out` has recorded."""
    names = []
    for file, *keys in ((PROGRESS, "settings", "formats"), (LATER, "formats")):
        with suppress(OSError, ValueError, RecursionError, LookupError, TypeError):
            found = json.loads((out / ".resume" / file).read_bytes())
            for key in keys:
                found = found[key]
            names += [name for name in found if isinstance(name, str)]
    return list(dict.fromkeys(names))


def add_formats(out: Path, names: Collection[str]) -> None:
    """Keep the names of formats that were written later, so that they are removed with the run."""
    kept = list(dict.fromkeys([*formats_of(out), *names]))
    write_whole(make_folder(out / ".resume") / LATER, json.dumps({"formats": kept}).encode())


def remove_run(out: Path, patterns: Collection[str] = ()) -> None:
    """Remove what an earlier run wrote, and nothing else.

    Args:
        out: its folder.
        patterns: glob patterns of further files, `{name}` in place of a frame's name.
    """
    if not (out / ROWS).exists():
        return
    with writing(out):
        for row in iterate_rows(out / ROWS):
            name = row.get("name")
            if not is_plain_name(name):
                raise StremnError(
                    f"{out / ROWS} names a frame {name!r}, which no run writes. Remove "
                    "the folder yourself, or choose another one."
                )
            (out / "masks" / f"{name}.png").unlink(missing_ok=True)
            (out / "probabilities" / f"{name}.npz").unlink(missing_ok=True)
            for pattern in patterns:
                if "{name}" in pattern:
                    _remove_matches(out, pattern.replace("{name}", glob.escape(name)))
        for name in (TABLE, "overlay.mp4", "objects.json"):
            (out / name).unlink(missing_ok=True)
        for pattern in patterns:
            if "{name}" not in pattern:
                _remove_matches(out, pattern)
        if (out / ".resume").exists():
            shutil.rmtree(out / ".resume")
        (out / ROWS).unlink()  # last: without it the rest counts as files that no run wrote


def _remove_matches(out: Path, pattern: str) -> None:
    """Remove files, and the folders between them and `out` if nothing else is in them."""
    for path in list(out.glob(pattern)):
        if path.parent.resolve().is_relative_to(out.resolve()):  # else through a link
            path.unlink()
            for folder in path.relative_to(out).parents[:-1]:
                with suppress(OSError):
                    (out / folder).rmdir()


def is_plain_name(name: object) -> TypeGuard[str]:
    """Return whether a name is a plain file name, which stays in its folder."""
    if not isinstance(name, str) or name in ("", ".", ".."):
        return False
    return not any(letter in name for letter in "/\\\0")
