"""The demo's files: the drawn clip as a video, and the mask of its first frame."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

from stremn.media.demo_scene import RATE, draw_demo
from stremn.media.encoding import write_video
from stremn.media.masks import write_mask


class DemoFiles(NamedTuple):
    """Where the demo's clip and the mask of its first frame are."""

    clip: Path
    mask: Path


def write_demo(folder: Path) -> DemoFiles:
    """Draw the demo's clip and write `clip.mp4` and `clip-first.png` into an existing folder.

    Raises:
        StremnError: no permission, or the disk is full.
    """
    files = DemoFiles(folder / "clip.mp4", folder / "clip-first.png")
    _, first = next(draw_demo())
    write_mask(files.mask, first)
    write_video(files.clip, (image for image, _ in draw_demo()), RATE)
    return files


@cache
def demo_clip() -> Path:
    """Draw the demo's clip into a temporary folder, once per process, and return the video."""
    return write_demo(Path(_temporary().name)).clip


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    """Return a folder that is removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="stremn-demo-")
