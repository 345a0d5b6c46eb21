"""Running a video for the page: options in, files and a summary out; knows nothing of the page."""

import shutil
import threading
import zipfile
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from stremn.errors import StremnError
from stremn.media.frames import Picture, frame_name
from stremn.media.masks import LabelMap, label_map
from stremn.media.video import open_frames
from stremn.networks.defaults import SHIPPED

if TYPE_CHECKING:
    from stremn.networks.pretrained import Pretrained


def frame_of(video: str, index: int = 0) -> Picture:
    """A frame of a video; raises StremnError if it cannot be read or is not there."""
    with open_frames(Path(video), start=index) as frames:
        return frames.peek().image


@dataclass(frozen=True)
class Options:
    """How to follow: K slots, rule, working size (shorter side), frames at most (0: all).

    adapt: whether to adapt the network to the objects first.
    """

    slots: int = SHIPPED.memory_slots
    policy: str = SHIPPED.policy
    size: int = SHIPPED.size
    limit: int = 0
    adapt: bool = False


@dataclass(frozen=True)
class Followed:
    """The files of a run and a summary in words."""

    overlay: Path
    strip: Path
    masks: Path
    summary: str


@dataclass(frozen=True)
class Limits:
    """What visitors of a page may ask for.

    upload: bytes of a request.
    frames: of a run; a longer video is followed up to there.
    waiting: requests that wait for their turn; more are sent away.
    visitors: whose results are kept; the first that came go first.
    """

    upload: int = 2 * 10**9
    frames: int = 20_000
    waiting: int = 32
    visitors: int = 100


LIMITS = Limits()

Objects = tuple[str, bytes]
"""What a network is adapted to: a video, and the label map of its first frame."""


class StoppedError(StremnError):
    """The user stopped the run."""


def follow(
    video: str,
    masks: Mapping[int, LabelMap],
    pretrained: "Pretrained",
    out: Path,
    options: Options,
    *,
    device: str = "auto",
    watch: Callable[[str, int, int | None], None],
    adapted: "MutableMapping[Objects, Pretrained] | None" = None,
) -> Followed:
    """Follow objects through a video.

    Args:
        video: path of the video.
        masks: the objects by frame: in frame 0, and corrections later.
        pretrained: the model.
        out: folder for the results; made anew.
        options: how to follow.
        device: where to compute.
        watch: told ("adapting" or "following", steps or frames done, how many in all or None);
            raises StoppedError to end the run, of which the frames so far are kept.
        adapted: the network adapted to the objects last; used if they are the same, else changed.

    Raises:
        StremnError: the video breaks before its second frame, or a setting is impossible.
    """
    from stremn.media.results import ResultWriter
    from stremn.segmentation.pipeline import STRIP, segment_video
    from stremn.segmentation.sessions import SegmentationSession

    def opened(model: "Pretrained") -> SegmentationSession:
        return SegmentationSession(
            model.model,
            device=device,
            memory_slots=options.slots,
            policy=options.policy,
            size=options.size,
            reach=model.config.usual.reach,
            every=model.config.usual.every,
        )

    session = opened(pretrained)  # a wrong option is found before anything takes long
    if options.adapt:
        from stremn.training.segmentation.adaptation import adapt

        kept = {} if adapted is None else adapted
        objects = video, masks[0].labels.tobytes()
        if objects not in kept:
            kept.clear()
            kept[objects] = adapt(
                pretrained,
                frame_of(video),
                masks[0].labels,
                device=device,
                watch=lambda done, steps: watch("adapting", done, steps),
            )
        session = opened(kept[objects])
    note = ""
    with open_frames(Path(video)) as frames:
        total = min(options.limit or frames.count or 0, frames.count or options.limit) or None
        writer = ResultWriter(out, fps=frames.fps, existing="replace")
        try:
            summary = segment_video(
                frames,
                session,
                lambda frame: masks.get(frame.index),
                writer,
                limit=options.limit or None,
                watch=lambda done, result: watch("following", done, total),
            )
            speed = f"{summary.frames_per_second:.1f} frames/s"
        except StremnError as error:
            if writer.written < 2:
                raise
            note = "Stopped early. " if isinstance(error, StoppedError) else f"**{error}** "
            speed = "until then"
    megabytes = session.memory_bytes / 1e6
    count = len({item for mask in masks.values() for item in mask.ids})
    counted = "1 object" if count == 1 else f"{count} objects"
    text = (
        f"{note}{writer.written} frames, {counted}, {speed}. The memory took "
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


@dataclass
class Visit:
    """What the server keeps of one visitor.

    folder: where the last run wrote; the server made it and chose its name.
    video: path of the last run's video.
    stop: set to end the run.
    adapted: the network adapted to the last objects.
    """

    folder: Path | None = None
    video: str | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    adapted: "dict[Objects, Pretrained]" = field(default_factory=dict)

    def remove_folder(self) -> None:
        """Remove the results of the last run."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None


class Runs:
    """The visitors' runs, each in a folder of its own below `root`.

    The browser names its visitor, so the name is a key of a dictionary and never part of a path.
    """

    def __init__(self, root: Path, most: int = LIMITS.visitors) -> None:
        self._root = root
        self._most = most
        self._visits: dict[str, Visit] = {}

    def followed(self, visitor: str) -> int:
        """Return how many frames a visitor's last run followed."""
        folder = self._visit(visitor).folder
        return 0 if folder is None else len(list((folder / "masks").glob("*.png")))

    def found(self, visitor: str, video: str | None, index: int) -> LabelMap:
        """Return the label map that a visitor's last run of `video` found in a frame.

        Raises:
            StremnError: the last run was of another video, or did not reach the frame.
        """
        visit = self._visit(visitor)
        if visit.folder is not None and visit.video == video:
            path = visit.folder / "masks" / f"{frame_name(index)}.png"
            if path.exists():
                with Image.open(path) as image:
                    return label_map(np.asarray(image))
        raise StremnError(f"Frame {index} has not been followed yet; press Follow first.")

    def _visit(self, visitor: str) -> Visit:
        return self._visits.get(visitor, Visit())

    def begin(self, visitor: str, video: str | None) -> tuple[Path, Visit]:
        """Return an empty folder for a visitor's new run, and what is kept of the visitor."""
        visit = self._visits.pop(visitor, Visit())
        for old in list(self._visits)[: max(0, len(self._visits) + 1 - self._most)]:
            self.leave(old)
        self._visits[visitor] = visit
        visit.remove_folder()
        visit.folder = Path(mkdtemp(prefix="run-", dir=self._root))
        visit.video, visit.stop = video, threading.Event()
        return visit.folder, visit

    def stop(self, visitor: str) -> None:
        """End a visitor's run after the current frame."""
        self._visit(visitor).stop.set()

    def leave(self, visitor: str) -> None:
        """End a visitor's run and remove all that is kept of the visitor."""
        visit = self._visits.pop(visitor, None)
        if visit is not None:
            visit.stop.set()
            visit.remove_folder()

    def keep_copy(self, path: Path) -> Path:
        """Return a copy of a file where the page may serve it from."""
        copy = self._root / path.name
        if not copy.exists():
            shutil.copy(path, copy)
        return copy
