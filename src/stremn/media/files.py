"""Files that are valid at any moment: whole or absent, or growing row by row."""

import errno
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from stremn.core.atomic_files import remove_leftovers, replacing, writing
from stremn.errors import StremnError

__all__ = ["JsonRows", "iterate_rows", "make_folder", "read_rows", "write_whole", "writing"]

_TAIL = b"\n]\n"


def make_folder(path: Path) -> Path:
    """Create a folder with its parents, and remove partial files of killed runs in it.

    Raises:
        StremnError: that is not possible.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    return path


def write_whole(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file atomically.

    Args:
        path: the file; its folder must exist.
        content: all of it.
        durable: as in `replacing`.

    Raises:
        StremnError: no permission, disk full, no place for a file; an earlier file is unchanged.
    """
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(content)


class JsonRows:
    """A JSON array that grows: one row per line, and a valid JSON file after every `append`.

    A row and the closing bracket go out in one write over the old bracket, so a killed process
    leaves the file as it was before or after the row.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        """Start the file with its first `keep` rows, if there are any, and nothing else."""
        self.path = path
        self.count = 0
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(b"[")
            for row in islice(iterate_rows(path), keep) if keep and path.exists() else ():
                file.write(self._next_line(row))
                self.count += 1
            file.write(_TAIL)
        with writing(path):
            self._file = path.open("r+b", buffering=0)
            self._end = self._file.seek(0, os.SEEK_END)

    def append(self, row: dict[str, Any]) -> None:
        """Add one row.

        Raises:
            StremnError: disk full or the like; the file holds the rows before.
        """
        content = self._next_line(row) + _TAIL
        offset = self._end - len(_TAIL)
        with writing(self.path):
            try:
                self._write_at(offset, content)
            except OSError:
                self._write_at(offset, _TAIL)
                self._file.truncate(self._end)
                raise
        self._end = offset + len(content)
        self.count += 1

    def _next_line(self, row: dict[str, Any]) -> bytes:
        text = json.dumps(row, separators=(", ", ": "), allow_nan=False)
        return f"{',' if self.count else ''}\n{text}".encode()

    def _write_at(self, offset: int, content: bytes) -> None:
        self._file.seek(offset)
        if self._file.write(content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._file.close()


def iterate_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Return the rows of a `JsonRows` file, read line by line: a long file does not fill the
    memory.

    Raises:
        StremnError: the file is not there or a line is not an object.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                text = line.strip().rstrip(",")
                if text in ("[", "]", ""):
                    continue
                row = json.loads(text)
                if not isinstance(row, dict):
                    raise ValueError("a row is not an object")
                yield row
    except FileNotFoundError as error:
        raise StremnError(f"There is no file {path}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise StremnError(f"{path} cannot be read as JSON rows: {error}.") from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return all rows of a `JsonRows` file; raises as `iterate_rows`."""
    return list(iterate_rows(path))
