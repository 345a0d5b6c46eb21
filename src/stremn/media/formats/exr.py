"""OpenEXR: half-float pictures in linear light, with a matte of each object as its own channel.

Read by Nuke, Fusion, Blender and After Effects. Channels are R, G, B, A (all objects together) and
`object1.A`, `object2.A`, ...
"""

from __future__ import annotations

import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from stremn.errors import MissingExtraError
from stremn.media.formats.mattes import object_matte, objects_matte
from stremn.media.formats.pictures import FolderFormat
from stremn.media.frame_results import FrameResult


def exr() -> FolderFormat:
    """Return the format; checking it raises MissingExtraError where OpenEXR is not installed."""
    return FolderFormat("exr", _content, ".exr", require=_require_openexr)


def _require_openexr() -> None:
    if find_spec("OpenEXR") is None:
        raise MissingExtraError("OpenEXR", "exr")


def _content(result: FrameResult) -> bytes:
    openexr: Any = import_module("OpenEXR")
    channels = {"RGB": _linear(result.frame.image), "A": objects_matte(result).astype(np.float16)}
    for item in result.followed():
        channels[f"object{item}.A"] = object_matte(result, item).astype(np.float16)
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    with tempfile.TemporaryDirectory() as folder:  # the library writes to paths only
        path = Path(folder) / "frame.exr"
        openexr.File(header, channels).write(str(path))
        return path.read_bytes()


def _linear(image: np.ndarray) -> np.ndarray:
    """Return sRGB bytes as linear light, 0..1, half floats."""
    values = np.arange(256) / 255
    table = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return table.astype(np.float16)[image]
