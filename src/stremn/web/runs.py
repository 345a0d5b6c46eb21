"""Running a video for the page: options in, files and a summary out; knows nothing of the page."""

import shutil
import tempfile
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stremn.errors import StremnError
from stremn.media.frames import Picture
from stremn.media.masks import LabelMap
from stremn.media.video import open_frames

if TYPE_CHECKING:
    from stremn.model import STReMN


def first_frame(video: str) -> Picture:
    """The first frame of a video; raises StremnError if it cannot be read."""
    with open_frames(Path(video)) as frames:
        return next(iter(frames)).image


@dataclass(frozen=True)
class Options:
    """How to follow: K slots, rule, working size (shorter side), frames at most (0: all)."""

    slots: int = 6
    policy: str = "evidence"
    size: int = 432
    limit: int = 0


@dataclass(frozen=True)
class Followed:
    """The files of a run and a summary in words."""

    overlay: Path
    strip: Path
    masks: Path
    summary: str


class StoppedError(StremnError):
    """The user stopped the run."""


def follow(
    video: str,
    mask: LabelMap,
    model: "STReMN",
    out: Path,
    options: Options,
    *,
    device: str = "auto",
    watch: Callable[[int, int | None], None],
) -> Followed:
    """Follow the objects of a mask of the first frame through a video.

    Args:
        video: path of the video.
        mask: the objects in its first frame.
        model: the network.
        out: folder for the results; made anew.
        options: how to follow.
        device: where to compute.
        watch: told (frames done, frames in all or None); raises StoppedError to end the run, of
            which the frames so far are kept.

    Raises:
        StremnError: the video breaks before its second frame, or a setting is impossible.
    """
    from stremn.media.results import ResultWriter
    from stremn.pipeline import STRIP, segment_video
    from stremn.sessions import SHIPPED_REACH, SegmentationSession

    session = SegmentationSession(
        model,
        device=device,
        memory_slots=options.slots,
        policy=options.policy,
        size=options.size,
        reach=SHIPPED_REACH,
    )
    note = ""
    with open_frames(Path(video)) as frames:
        total = min(options.limit or frames.count or 0, frames.count or options.limit) or None
        writer = ResultWriter(out, fps=frames.fps, existing="replace")
        try:
            summary = segment_video(
                frames,
                session,
                lambda frame: mask if frame.index == 0 else None,
                writer,
                limit=options.limit or None,
                watch=lambda done, result: watch(done, total),
            )
            speed = f"{summary.frames_per_second:.1f} frames/s"
        except StremnError as error:
            if writer.written < 2:
                raise
            note = "Stopped early. " if isinstance(error, StoppedError) else f"**{error}** "
            speed = "until then"
    megabytes = session.memory_bytes / 1e6
    objects = "1 object" if len(mask.ids) == 1 else f"{len(mask.ids)} objects"
    text = (
        f"{note}{writer.written} frames, {objects}, {speed}. The memory took "
        f"{megabytes:.1f} MB from the first frame to the last."
    )
    return Followed(out / "overlay.mp4", out / STRIP, _zip_masks(out), text)


def _zip_masks(out: Path) -> Path:
    """All masks and the record of the memory in one file."""
    path = out / "masks.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for mask in sorted((out / "masks").glob("*.png")):
            archive.write(mask, f"masks/{mask.name}")
        archive.write(out / "memory.json", "memory.json")
    return path


class Runs:
    """Folders of the runs, one a visitor, and the visitors' wish to stop."""

    def __init__(self) -> None:
        self._root = tempfile.TemporaryDirectory(prefix="stremn-web-")
        self._stops: dict[str, threading.Event] = {}

    def begin(self, visitor: str) -> tuple[Path, threading.Event]:
        """An empty folder for a visitor's new run, and the event that ends it."""
        folder = Path(self._root.name) / visitor
        shutil.rmtree(folder, ignore_errors=True)
        self._stops[visitor] = threading.Event()
        return folder, self._stops[visitor]

    def stop(self, visitor: str) -> None:
        """End a visitor's run after the frame at hand."""
        if visitor in self._stops:
            self._stops[visitor].set()

    def keep_copy(self, path: Path) -> Path:
        """A copy of a file where the page may serve it from."""
        copy = Path(self._root.name) / path.name
        if not copy.exists():
            shutil.copy(path, copy)
        return copy

    def close(self) -> None:
        """Remove all folders."""
        self._root.cleanup()
