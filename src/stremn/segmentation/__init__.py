"""Follow objects through videos: tracks, sessions, reports."""

import warnings
from importlib import import_module
from typing import Any

_MOVED = {
    "PRESETS": "stremn.networks.presets",
    "SHIPPED_REACH": "stremn.networks.presets",
    "SHIPPED_SIZE": "stremn.networks.presets",
    "SegmentationConfig": "stremn.networks.presets",
    "Track": "stremn.segmentation.tracks",
    "aggregate": "stremn.segmentation.tracks",
    "build_model": "stremn.networks.presets",
    "memorize": "stremn.segmentation.tracks",
    "segment": "stremn.segmentation.tracks",
    "start": "stremn.segmentation.tracks",
}


def __getattr__(name: str) -> Any:
    """Return what this module held before it became a package, with a warning."""
    if name not in _MOVED:
        raise AttributeError(f"module 'stremn.segmentation' has no attribute {name!r}")
    home = _MOVED[name]
    text = f"stremn.segmentation.{name} has moved: import it from {home}."
    warnings.warn(text, DeprecationWarning, stacklevel=2)
    return getattr(import_module(home), name)
