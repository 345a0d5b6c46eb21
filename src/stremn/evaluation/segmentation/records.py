"""Records that an evaluation keeps in its output folder, so that it can be resumed."""

from __future__ import annotations

import json
from pathlib import Path

from stremn.core.config import read_json
from stremn.errors import StremnError
from stremn.evaluation.segmentation.results import Json, SequenceRecord
from stremn.media.files import make_folder, write_whole
from stremn.moved import with_current_facts

_FOLDER = ".scores"
"""Inside the output folder."""


def open_output(out: Path, protocol: Json) -> None:
    """Make the output folder, or check that it holds an earlier part of the same run.

    What the protocol of an earlier version does not say is not compared.

    Raises:
        StremnError: the folder holds another run.
    """
    path = out / _FOLDER / "protocol.json"
    if not path.is_file():
        save_json(path, protocol)
        return
    before = with_current_facts(read_json(path.read_bytes(), str(path)))
    changed = [key for key in protocol if key in before and before[key] != protocol[key]]
    if changed:
        key = changed[0]
        raise StremnError(
            f"{out} holds another run: its {key} is {before[key]!r}, now {protocol[key]!r}. "
            "Choose another output folder, or remove this one."
        )


def load_record(out: Path, name: str) -> SequenceRecord | None:
    """Load the scores of a sequence; None if it is not finished."""
    path = _record_path(out, name)
    return _read(path) if path.is_file() else None


def has_record(out: Path, name: str) -> bool:
    """Return whether a sequence is finished."""
    return _record_path(out, name).is_file()


def save_record(out: Path, record: SequenceRecord) -> None:
    """Keep what a finished sequence scored."""
    save_json(_record_path(out, record.sequence), record.to_json())


def read_records(out: Path) -> list[SequenceRecord]:
    """Read the scores of each finished sequence, by name.

    Raises:
        StremnError: no evaluation there.
    """
    files = sorted(_record_path(out, "any").parent.glob("*.json"))
    if not files:
        raise StremnError(f"{out} holds no scores. Give the output folder of `stremn evaluate`.")
    return [_read(file) for file in files]


def save_json(path: Path, table: Json) -> None:
    """Write a JSON file and the folder that it is in."""
    make_folder(path.parent)
    write_whole(path, (json.dumps(table, indent=1, allow_nan=False) + "\n").encode())


def _record_path(out: Path, name: str) -> Path:
    return out / _FOLDER / "sequences" / f"{name}.json"


def _read(path: Path) -> SequenceRecord:
    try:
        return SequenceRecord.from_json(read_json(path.read_bytes(), str(path)))
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise StremnError(
            f"{path} is damaged ({type(error).__name__}: {error}). Remove it: its sequence is "
            "then scored again."
        ) from error
