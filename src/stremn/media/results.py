"""Results out: palette PNG masks, overlay video, one JSON row a frame; valid at any moment.

In the output folder:

- `masks/NAME.png`: label map of each frame, ids kept, original size.
- `overlay.mp4`: the video with the objects drawn in. It is encoded in numbered parts of
  `checkpoint_every` frames in `.resume/` and joined without encoding again, so a run that was
  continued gives the same file as one that was not interrupted.
- `memory.json`: a JSON array, one row a line, valid after every frame.
- `probabilities/NAME.npz` and `objects.json` (COCO) if asked for.
- `adapted.safetensors`: the weights of a run that adapted its network, kept by whoever did.
- `.resume/`: what `existing="resume"` needs to go on; the parts go when the run is finished.
"""

import io
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeGuard

import numpy as np
from jaxtyping import Float
from pydantic import ConfigDict, Field

from stremn.core.atomic_files import FolderLock, remove_leftovers, sync
from stremn.core.config import Config, build, read_json
from stremn.errors import StremnError
from stremn.media.coco import coco_row, write_coco
from stremn.media.drawing import OverlayStyle
from stremn.media.encoding import VideoPart, join_videos
from stremn.media.files import JsonRows, iterate_rows, make_folder, write_whole, writing
from stremn.media.frames import Frame
from stremn.media.masks import Labels, write_mask
from stremn.media.pictures import opened_picture

logger = logging.getLogger(__name__)

Existing = Literal["refuse", "resume", "replace"]
_RATE_IF_UNKNOWN = 25.0
ADAPTED = "adapted.safetensors"
"""Weights adapted to a run's objects, in its folder; other runs may take them as their model."""


@dataclass(frozen=True)
class FrameResult:
    """What is known about one frame after its step.

    Attributes:
        frame: the frame as it was read.
        labels: ids "height width", of the frame's size; 0 is background.
        memory: the row for `memory.json` (JSON values); index and name are added to it.
        ids: ids of the objects behind `probabilities`, in their order.
        probabilities: "o height width", 0..1, one layer per id; None if they are not kept.
    """

    frame: Frame
    labels: Labels
    memory: Mapping[str, Any]
    ids: tuple[int, ...] = ()
    probabilities: Float[np.ndarray, "o height width"] | None = None


class ResultWriter:
    """Write the results of a video into a folder, frame by frame.

    Use it as a context manager: leaving it joins the overlay of the frames written so far. Call
    `finish` when the video is at its end. With threads, `write` is what runs behind; call
    `checkpoint` only when all frames up to it are written.

    Attributes:
        out: the output folder.
        next_frame: index of the first frame that is still to be written (0, or where an
            interrupted run goes on).
        read_from: index of the first frame that `redraw` wants, at most `next_frame`: the part of
            the overlay that the interruption cut short is drawn again, so that it comes out the
            same as without an interruption.
        finished: the folder holds a complete run already.
        state_path: file with the session's state before `next_frame`; None at frame 0.
    """

    def __init__(
        self,
        out: Path,
        *,
        fps: float | int | None,
        settings: Mapping[str, Any] | None = None,
        existing: Existing = "refuse",
        checkpoint_every: int = 250,
        probabilities: bool = False,
        coco: bool = False,
        style: OverlayStyle | None = None,
    ) -> None:
        """Open the folder.

        Args:
            out: output folder; created if it is not there.
            fps: rate of the overlay; None is taken as 25.
            settings: JSON values that a resumed run must share with the interrupted one.
            existing: what to do with an earlier run in `out`: refuse, resume it, or replace it.
            checkpoint_every: frames between two points that a run can be resumed from.
            probabilities: write `probabilities/NAME.npz` (float16).
            coco: write `objects.json` in COCO form with run lengths.
            style: how the overlay looks; None is the usual one.

        Raises:
            StremnError: no permission; an earlier run is in the way; it had other settings.
        """
        self.out = out
        self._every = checkpoint_every
        self._rate = Fraction(fps or _RATE_IF_UNKNOWN).limit_denominator(1001)
        self._style = style or OverlayStyle()
        kept = {"probabilities": probabilities, "coco": coco, **self._style.settings()}
        self._settings = json.loads(json.dumps({**(settings or {}), **kept}))
        self._keep_probabilities = probabilities
        self._resume = out / ".resume"
        self._unsynced: list[Path] = []
        make_folder(out)
        self._lock = FolderLock(out)
        for folder in (out / "masks", out / "probabilities", self._resume):
            _refuse_link(folder)
            remove_leftovers(folder)
        remove_leftovers(out)
        rows = _count_rows(out / "memory.json")
        made = _read_progress(self._resume, rows) if rows and existing != "replace" else None
        self._check_earlier(existing, made, rows)
        resumed = made if existing == "resume" else None
        self.next_frame = resumed.frames if resumed else 0
        self.finished = bool(resumed and resumed.finished)
        self.state_path = self._resume / resumed.state if resumed and resumed.state else None
        self.read_from = self.next_frame - self.next_frame % checkpoint_every
        if existing == "replace":
            _remove_run(out)
        for folder in (out / "masks", self._resume):
            make_folder(folder)
        if probabilities:
            make_folder(out / "probabilities")
        self._memory = JsonRows(out / "memory.json", keep=self.next_frame)
        self._coco = JsonRows(self._resume / "objects.json", keep=self.next_frame) if coco else None
        self._overlay: VideoPart | None = None
        self._closed = False
        self._redrawn = self.read_from
        for part in self._parts():
            if _part_start(part) >= self.next_frame:
                part.unlink()
        if self.next_frame == 0:
            self._save_progress(
                Progress(frames=0, finished=False, state=None, settings=self._settings)
            )
        if self.finished:
            self._remove_parts()

    def _check_earlier(self, existing: Existing, made: "Progress | None", rows: int) -> None:
        if existing == "refuse" and rows:
            raise StremnError(
                f"{self.out} holds {rows} frames of an earlier run. Add --resume to continue it, "
                "--overwrite to replace it, or choose another output folder."
            )
        if existing == "resume" and made is not None and made.settings != self._settings:
            keys = sorted(made.settings.keys() | self._settings.keys())
            other = [key for key in keys if made.settings.get(key) != self._settings.get(key)]
            key = other[0]
            raise StremnError(
                f"The run in {self.out} cannot be continued: it was made with {key} "
                f"{made.settings.get(key)!r}, now {key} is {self._settings.get(key)!r}. Use the "
                "same settings, or --overwrite to start again."
            )

    @property
    def written(self) -> int:
        """Frames whose results are complete on disk."""
        return self._memory.count

    def files(self) -> dict[str, Path]:
        """Return what the folder holds of the run, by kind, as far as it is written."""
        kinds = {
            "masks": "masks",
            "overlay": "overlay.mp4",
            "soft masks": "probabilities",
            "COCO": "objects.json",
            "weights": ADAPTED,
            "memory": "memory.json",
            "strip": "memory.png",
        }
        found = {kind: self.out / name for kind, name in kinds.items()}
        return {kind: path for kind, path in found.items() if path.exists()}

    @property
    def keeps_probabilities(self) -> bool:
        """Whether results should carry probabilities."""
        return self._keep_probabilities

    # ------------------------------------------------------------ frame by frame

    def write(self, result: FrameResult) -> None:
        """Write everything about one frame; frames come in order, without gaps.

        Raises:
            StremnError: no permission, disk full; the frames before are complete.
        """
        frame = result.frame
        if frame.index != self._memory.count:
            raise StremnError(
                f"Frames must be written in order: expected {self._memory.count}, got "
                f"{frame.index}."
            )
        mask = self.out / "masks" / f"{frame.name}.png"
        write_mask(mask, result.labels, durable=False)
        self._unsynced.append(mask)
        if self._keep_probabilities and result.probabilities is not None:
            self._write_probabilities(result)
        self._overlay_part(frame).add(self._style.draw(frame.image, result.labels))
        if self._coco is not None:
            self._coco.append(coco_row(frame, result.labels))
        self._memory.append({"frame": frame.index, "name": frame.name, **result.memory})

    def _write_probabilities(self, result: FrameResult) -> None:
        content = io.BytesIO()
        np.savez_compressed(
            content,
            ids=np.asarray(result.ids, dtype=np.int64),
            probabilities=np.asarray(result.probabilities, dtype=np.float16),
        )
        path = self.out / "probabilities" / f"{result.frame.name}.npz"
        write_whole(path, content.getvalue(), durable=False)
        self._unsynced.append(path)

    def redraw(self, frame: Frame) -> None:
        """Draw a frame between `read_from` and `next_frame` into the overlay again.

        Leaving this out, or giving other frames, only shifts where the overlay's key frames are.

        Raises:
            StremnError: the frame's mask is gone, or no permission, disk full.
        """
        if frame.index != self._redrawn or frame.index >= self.next_frame:
            return
        self._redrawn += 1
        path = self.out / "masks" / f"{frame.name}.png"
        try:
            with opened_picture(path) as image:
                labels = np.asarray(image)
            if labels.shape != frame.image.shape[:2]:
                raise OSError(f"it is {labels.shape[1]}x{labels.shape[0]}, unlike the frame")
        except OSError as error:
            raise StremnError(
                f"The mask {path} of the interrupted run is gone or damaged ({error}). Use "
                "--overwrite to start again."
            ) from error
        self._overlay_part(frame).add(self._style.draw(frame.image, labels))

    def _overlay_part(self, frame: Frame) -> VideoPart:
        if self._overlay is None:
            path = self._resume / f"overlay-{frame.index:09d}.mp4"
            height, width = frame.image.shape[:2]
            self._overlay = VideoPart(path, self._rate, (height, width))
        return self._overlay

    # ------------------------------------------------------------ resuming

    def checkpoint_due(self, index: int) -> bool:
        """Whether the run should be made resumable after the frame `index`."""
        return (index + 1) % self._every == 0

    def checkpoint(self, save_state: Callable[[Path], object]) -> None:
        """Make the run resumable after the last written frame.

        Args:
            save_state: writes the session's state, after that same frame, to the path it is given.

        Raises:
            StremnError: no permission, disk full; the checkpoint before stays in force.
        """
        self._close_part()
        self._sync()
        frames = self._memory.count
        name = _state_name(frames)
        with writing(self._resume / name):
            save_state(self._resume / name)
        progress = Progress(frames=frames, finished=False, state=name, settings=self._settings)
        self._save_progress(progress)
        for old in self._resume.glob("state-*"):
            if old.name != name:
                old.unlink(missing_ok=True)
        self.state_path = self._resume / name

    def _save_progress(self, progress: "Progress") -> None:
        content = progress.model_dump_json(indent=1)
        write_whole(self._resume / "progress.json", content.encode())

    # ------------------------------------------------------------ the end

    def finish(self) -> None:
        """The video is at its end: join the overlay and drop what only resuming needs."""
        if self.finished:
            return
        self.close()
        self._sync()
        frames = self._memory.count
        progress = Progress(frames=frames, finished=True, state=None, settings=self._settings)
        self._save_progress(progress)
        self._remove_parts()
        self.finished = True
        self.state_path = None

    def _remove_parts(self) -> None:
        """Remove what only resuming needs."""
        for pattern in ("state-*", "overlay-*", "strip.npz"):
            for path in self._resume.glob(pattern):
                path.unlink(missing_ok=True)

    def _sync(self) -> None:
        """Bring to the disk what was written since the last time; a power cut then takes no part.

        Single frames are not waited for: that would take longer than segmenting them.
        """
        kept = [self.out / "memory.json", self._resume / "objects.json"]
        sync([*self._unsynced, *self._parts(), *kept])
        self._unsynced.clear()

    def close(self) -> None:
        """Close all files and join the overlay of the frames so far; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        try:
            self._close_files()
        finally:
            self._lock.release()

    def _close_files(self) -> None:
        self._memory.close()
        if self._coco is not None:
            self._coco.close()
        if self.finished:
            return
        self._close_part()
        parts = [part for part in self._parts() if _part_start(part) < self._memory.count]
        if parts:
            join_videos(parts, self.out / "overlay.mp4")
        if self._coco is not None:
            write_coco(self._resume / "objects.json", self.out / "objects.json")

    def _parts(self) -> list[Path]:
        return sorted(self._resume.glob("overlay-*.mp4"))

    def _close_part(self) -> None:
        if self._overlay is not None:
            part, self._overlay = self._overlay, None
            part.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.close()
        except StremnError as late:
            if error is None:
                raise
            logger.warning("%s", late)


def _count_rows(path: Path) -> int:
    return sum(1 for _ in iterate_rows(path)) if path.exists() else 0


def _part_start(part: Path) -> int:
    """Index of the first frame of a part of the overlay."""
    return int(part.stem.split("-")[1])


class Progress(Config):
    """How far a run is: complete frames, and the session's state after them."""

    model_config = ConfigDict(strict=True)

    frames: Annotated[int, Field(ge=0)]
    finished: bool
    state: str | None
    settings: dict[str, Any]


def _read_progress(folder: Path, rows: int) -> Progress | None:
    """Return how far a run of `rows` frames in memory.json is; None if nothing says so."""
    path = folder / "progress.json"
    if not path.exists():
        return None
    try:
        found = build(Progress, read_json(path.read_bytes(), path.name), path.name)
        if found.frames > rows:
            raise ValueError(f"it counts {found.frames} frames, memory.json {rows}")
        if found.state not in (None, _state_name(found.frames)):
            raise ValueError(f"its state is not {_state_name(found.frames)}")
    except (OSError, ValueError) as error:
        reason = str(error).rstrip(".")
        raise StremnError(
            f"{path} is damaged, so the run cannot be continued: {reason}. Use --overwrite to "
            "start again."
        ) from error
    return found


def _state_name(frames: int) -> str:
    return f"state-{frames:09d}.safetensors"


def _refuse_link(folder: Path) -> None:
    if folder.is_symlink():
        raise StremnError(
            f"{folder} is a link, and results are not written through it. Remove it, or choose "
            "another output folder."
        )


def _remove_run(out: Path) -> None:
    """Remove what an earlier run wrote, and nothing else."""
    if not (out / "memory.json").exists():
        return
    with writing(out):
        for row in iterate_rows(out / "memory.json"):
            name = row.get("name")
            if not is_plain_name(name):
                raise StremnError(
                    f"{out / 'memory.json'} names a frame {name!r}, which no run writes. Remove "
                    "the folder yourself, or choose another one."
                )
            (out / "masks" / f"{name}.png").unlink(missing_ok=True)
            (out / "probabilities" / f"{name}.npz").unlink(missing_ok=True)
        for name in ("memory.json", "overlay.mp4", "objects.json"):
            (out / name).unlink(missing_ok=True)
        if (out / ".resume").exists():
            shutil.rmtree(out / ".resume")


def is_plain_name(name: object) -> TypeGuard[str]:
    """Whether something is a file's name that stays in its folder."""
    if not isinstance(name, str) or name in ("", ".", ".."):
        return False
    return not any(letter in name for letter in "/\\\0")
