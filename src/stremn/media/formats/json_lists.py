"""JSON objects of long lists, written value by value."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stremn.core.atomic_files import replacing


def write_lists(path: Path, lists: Mapping[str, Iterable[Any]]) -> None:
    """Write `{"name": [value, ...], ...}`, a value a line, so that the file is never in memory.

    Raises:
        StremnError: no permission, disk full; an earlier file is unchanged.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("{")
        for place, (name, values) in enumerate(lists.items()):
            file.write(f'{", " if place else ""}{json.dumps(name)}: [')
            for position, value in enumerate(values):
                file.write(",\n" if position else "\n")
                file.write(json.dumps(value))
            file.write("]")
        file.write("}\n")
