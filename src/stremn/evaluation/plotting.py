"""Whether plots can be drawn, to be asked before anything takes long."""

from __future__ import annotations

from importlib.util import find_spec

from stremn.errors import MissingExtraError


def require_matplotlib() -> None:
    """Raise MissingExtraError if matplotlib is missing, without importing it."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "study")
