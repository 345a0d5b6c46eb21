"""JSON files with lists that are never in memory as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from stremn.core.atomic_files import replacing


def write_json(path: Path, value: Any) -> None:
    """Write a value in which iterators stand for lists, to any depth.

    Raises:
        StremnError: no permission, disk full; an earlier file is unchanged.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        _write(file, value)
        file.write("\n")


def _write(file: TextIO, value: Any) -> None:
    if isinstance(value, Iterator):
        file.write("[")
        for position, item in enumerate(value):
            file.write(",\n" if position else "\n")
            _write(file, item)
        file.write("]")
    elif isinstance(value, Mapping):
        file.write("{")
        for position, (name, item) in enumerate(value.items()):
            file.write(f"{', ' if position else ''}{json.dumps(name)}: ")
            _write(file, item)
        file.write("}")
    else:
        file.write(json.dumps(value))
