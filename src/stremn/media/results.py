"""Write results: palette PNG masks, overlay video, one JSON row per frame; valid at any moment.

In the output folder:

- `masks/NAME.png`: label map of each frame, ids kept, original size.
- `overlay.mp4`: the video with the objects drawn in. It is encoded in numbered parts of
  `checkpoint_every` frames in `.resume/` and joined without encoding again, so a run that was
  continued gives the same file as one that was not interrupted.
- `memory.json`: a JSON array, one row per line, valid after every frame.
- `objects.csv`: where each object is in each frame (`stremn.media.presence`).
- `probabilities/NAME.npz` and the formats of `stremn.media.formats`, if asked for.
- `adapted.safetensors`: the weights of a run that adapted its network, kept by whoever did.
- `.resume/`: what `existing="resume"` needs; the parts are removed when the run is finished.
"""

import io
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np

from stremn.core.atomic_files import FolderLock, remove_leftovers, sync
from stremn.errors import StremnError
from stremn.media.drawing import OverlayStyle
from stremn.media.files import JsonRows, make_folder, write_whole, writing
from stremn.media.formats.base import Format
from stremn.media.formats.choosing import file_patterns
from stremn.media.formats.open_formats import OpenFormats, folders_of, output_of
from stremn.media.frame_results import FrameResult
from stremn.media.frames import SQUARE, Frame
from stremn.media.masks import Labels, write_mask, written_labels
from stremn.media.overlay_parts import PATTERN
from stremn.media.overlays import Overlay
from stremn.media.pace import Pace
from stremn.media.presence import PresenceTable
from stremn.media.run_folder import (
    ROWS,
    TABLE,
    Existing,
    Progress,
    as_json,
    earlier_run,
    formats_of,
    refuse_link,
    refuse_others_files,
    remove_run,
    state_name,
)

logger = logging.getLogger(__name__)

_FORMATS = "formats"
ADAPTED = "adapted.safetensors"
"""Weights adapted to a run's objects, in its folder; other runs may take them as their model."""


class ResultWriter:
    """Write the results of a video into a folder, frame by frame.

    Use it as a context manager: leaving it joins the overlay of the frames written so far. Call
    `finish` when the video is at its end. With threads, `write` is what runs behind; call
    `checkpoint` only when all frames up to it are written.

    Attributes:
        out: the output folder.
        first: index of the run's first frame in its video.
        next_frame: index of the first frame that is still to be written (`first`, or where an
            interrupted run continues).
        read_from: index of the first frame that `redraw` wants, at most `next_frame`: the part of
            the overlay that the interruption cut short is drawn again, so that it comes out the
            same as without an interruption.
        resumes: an earlier run can be resumed.
        finished: the folder holds a complete run already.
        state_path: file with the session's state before `next_frame`; None at the first frame.
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
        formats: Sequence[Format] = (),
        style: OverlayStyle | None = None,
        first: int = 0,
        overlay_fps: float | None = None,
        pixel_aspect: Fraction = SQUARE,
        sound: Path | None = None,
    ) -> None:
        """Open the folder.

        Args:
            out: output folder; created if it is not there.
            fps: rate of the video; None is taken as `overlay_fps`, or 25.
            settings: JSON values that a resumed run must share with the interrupted one.
            existing: what to do with an earlier run in `out`: refuse, resume it, or replace it.
            checkpoint_every: frames between two points that a run can be resumed from.
            probabilities: write `probabilities/NAME.npz` (float16).
            formats: what else is written, for other programs.
            style: how the overlay looks; None is the usual one.
            first: index of the run's first frame in its video.
            overlay_fps: frames per second of the overlay, at most `fps`; None is as many as that.
            pixel_aspect: width of the video's pixels by their height.
            sound: the video, if its sound is to be heard in the overlay.

        Raises:
            StremnError: no permission; an earlier run, or a file that no run wrote, is in the way;
                the earlier run had other settings.
        """
        self.out = out
        self.first = first
        self._every = checkpoint_every
        self._style = style or OverlayStyle()
        self._formats = tuple(formats)
        kept = {"probabilities": probabilities, **self._style.settings()}
        kept |= {"formats": [chosen.name for chosen in formats]} if formats else {}
        kept |= {"first": first} if first else {}
        kept |= {"fps": overlay_fps} if overlay_fps is not None else {}
        pace = Pace.of(fps, overlay_fps, first)
        self._settings = as_json({**(settings or {}), **kept})
        self._keep_probabilities = probabilities
        self._resume = out / ".resume"
        self._unsynced: list[Path] = []
        self._closed = self._complete = False
        make_folder(out)
        self._lock = FolderLock(out)
        with ExitStack() as undo:
            undo.callback(self._lock.release)
            self._open(existing, pace, pixel_aspect, sound, undo)
            undo.pop_all()

    def _open(
        self,
        existing: Existing,
        pace: Pace,
        pixel_aspect: Fraction,
        sound: Path | None,
        undo: ExitStack,
    ) -> None:
        """Begin or go on in the locked folder; `undo` closes what was opened where that fails."""
        out = self.out
        written = (folder for chosen in self._formats for folder in folders_of(chosen, out))
        for folder in (out / "masks", out / "probabilities", self._resume, *written):
            refuse_link(folder)
            remove_leftovers(folder)
        remove_leftovers(out)
        patterns = ["masks/{name}.png", "overlay.mp4", TABLE]
        patterns += ["probabilities/{name}.npz"] if self._keep_probabilities else []
        patterns += [pattern for chosen in self._formats for pattern in chosen.files]
        refuse_others_files(out, patterns)
        resumed = earlier_run(out, existing, self._settings)
        self.resumes = existing == "resume"
        done = resumed.frames if resumed else 0
        self.next_frame = self.first + done
        self.finished = bool(resumed and resumed.finished)
        self.state_path = self._resume / resumed.state if resumed and resumed.state else None
        self.read_from = self.next_frame - done % self._every
        if existing == "replace":
            remove_run(out, file_patterns(formats_of(out)))
        for folder in (out / "masks", self._resume):
            make_folder(folder)
        if self._keep_probabilities:
            make_folder(out / "probabilities")
        self._memory = JsonRows(out / ROWS, keep=done)
        undo.callback(self._memory.close)
        self._table = PresenceTable(out / TABLE, before=self.next_frame if done else 0)
        self._overlay = Overlay(self._resume, pace, pixel_aspect, sound)
        self._overlay.remove_from(self.next_frame)
        work = self._resume / _FORMATS
        opened = () if self.finished else self._formats
        self._others = OpenFormats(opened, out, work, done, pace.video_rate, pixel_aspect)
        self._redrawn = self.read_from
        if not done:
            self._save_progress(0)
        if self.finished:
            self._remove_parts()

    @property
    def written(self) -> int:
        """Frames whose results are complete on disk."""
        return self._memory.count

    @property
    def resume_folder(self) -> Path:
        """Folder of files that only resuming needs."""
        return self._resume

    def files(self) -> dict[str, Path]:
        """Return what the folder holds of the run, by kind, as far as it is written."""
        kinds = {
            "masks": "masks",
            "overlay": "overlay.mp4",
            "soft masks": "probabilities",
            "table": TABLE,
            "weights": ADAPTED,
            "memory": ROWS,
            "strip": "memory.png",
        }
        found = {kind: self.out / name for kind, name in kinds.items()}
        found |= {chosen.name: output_of(chosen, self.out) for chosen in self._formats}
        return {kind: path for kind, path in found.items() if path.exists()}

    @property
    def keeps_probabilities(self) -> bool:
        """Whether results should carry probabilities."""
        return self._keep_probabilities or any(chosen.soft for chosen in self._formats)

    # ------------------------------------------------------------ frame by frame

    def write(self, result: FrameResult) -> None:
        """Write everything about one frame; frames come in order, without gaps.

        Raises:
            StremnError: no permission, disk full; the frames before are complete.
        """
        frame = result.frame
        expected = self.first + self._memory.count
        if frame.index != expected:
            raise StremnError(
                f"Frames must be written in order: expected {expected}, got {frame.index}."
            )
        mask = self.out / "masks" / f"{frame.name}.png"
        write_mask(mask, result.labels, durable=False)
        self._unsynced.append(mask)
        if self._keep_probabilities and result.probabilities is not None:
            self._write_probabilities(result)
        self._draw(frame, result.labels)
        self._table.add(frame, result.labels, result.ids, result.confidences)
        self._others.write(result)
        time = {} if frame.time is None else {"time": round(frame.time, 6)}
        self._memory.append({"frame": frame.index, "name": frame.name, **time, **result.memory})

    def _draw(self, frame: Frame, labels: Labels) -> None:
        if self._overlay.shows(frame.index):
            self._overlay.add(frame.index, self._style.draw(frame.image, labels))

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
            labels = written_labels(path)
            if labels.shape != frame.image.shape[:2]:
                raise OSError(f"it is {labels.shape[1]}x{labels.shape[0]}, unlike the frame")
        except OSError as error:
            raise StremnError(
                f"The mask {path} of the interrupted run is gone or damaged ({error}). Use "
                "--overwrite to start again."
            ) from error
        self._draw(frame, labels)

    # ------------------------------------------------------------ resuming

    def checkpoint_due(self, index: int) -> bool:
        """Return whether to save a checkpoint after frame `index`."""
        return (index + 1 - self.first) % self._every == 0

    def checkpoint(self, save_state: Callable[[Path], object]) -> None:
        """Make the run resumable after the last written frame.

        Args:
            save_state: writes the session's state, after that same frame, to the path it is given.

        Raises:
            StremnError: no permission, disk full; the checkpoint before stays in force.
        """
        self._overlay.close_part()
        self._unsynced.extend(self._others.checkpoint())
        self._sync()
        frames = self._memory.count
        name = state_name(frames)
        with writing(self._resume / name):
            save_state(self._resume / name)
        self._save_progress(frames, state=name)
        for old in self._resume.glob("state-*"):
            if old.name != name:
                old.unlink(missing_ok=True)
        self.state_path = self._resume / name

    def _save_progress(
        self, frames: int, *, state: str | None = None, finished: bool = False
    ) -> None:
        progress = Progress(frames=frames, finished=finished, state=state, settings=self._settings)
        progress.save(self._resume)

    # ------------------------------------------------------------ the end

    def finish(self) -> None:
        """Finish the run: join the overlay and remove what only resuming needs.

        Raises:
            StremnError: no permission, disk full; the run can be resumed.
        """
        if self.finished:
            return
        self.close()
        if not self._complete:
            raise StremnError(
                f"The run in {self.out} cannot be finished: it was closed with an error. Open it "
                "again with --resume."
            )
        self._sync()
        self._save_progress(self._memory.count, finished=True)
        self._remove_parts()
        self.finished = True
        self.state_path = None

    def _remove_parts(self) -> None:
        """Remove what only resuming needs."""
        for pattern in ("state-*", PATTERN, "strip.npz"):
            for path in self._resume.glob(pattern):
                path.unlink(missing_ok=True)
        for folder in (_FORMATS, "backward"):
            shutil.rmtree(self._resume / folder, ignore_errors=True)

    def _sync(self) -> None:
        """Flush what was written since the last time, so that it survives a power cut.

        Single frames are not waited for: that would take longer than segmenting them.
        """
        kept = [self.out / ROWS, self.out / TABLE]
        sync([*self._unsynced, *self._overlay.take_new(), *kept])
        self._unsynced.clear()

    def close(self) -> None:
        """Close all files and join the overlay of the frames so far; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        try:
            self._close_files()
            self._complete = True
        finally:
            self._lock.release()

    def _close_files(self) -> None:
        self._memory.close()
        if self.finished:
            return
        with ExitStack() as last:
            last.callback(self._others.close)  # also where the overlay fails
            self._overlay.close_part()
            end = self.first + self._memory.count
            self._overlay.join_run(self.out / "overlay.mp4", self.out / ROWS, end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.close()
        except StremnError as late:
            if error is None:
                raise
            logger.warning("%s", late)
