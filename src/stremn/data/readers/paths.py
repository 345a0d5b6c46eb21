"""Where recipes' paths are: absolute, or below the folder named by STREMN_DATA."""

import os
from pathlib import Path

from stremn.errors import StremnError

DATA_VARIABLE = "STREMN_DATA"


def place(path: str) -> Path:
    """Resolve a path that is absolute, exists, or lies below the folder named by STREMN_DATA.

    Raises StremnError for a relative path that is not there while the variable is not set.
    """
    given = Path(path).expanduser()
    if given.is_absolute() or given.exists():
        return given
    root = os.environ.get(DATA_VARIABLE)
    if root is None:
        raise StremnError(
            f"The path {path!r} is relative: set the variable {DATA_VARIABLE} to the folder that "
            "holds the data, or give an absolute path (in a recipe with --set)."
        )
    return Path(root) / path
