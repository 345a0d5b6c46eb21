"""Write further formats of a finished run from the files in its folder."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from stremn.core.atomic_files import FolderLock, check_target
from stremn.errors import StremnError
from stremn.media.files import iterate_rows, make_folder, writing
from stremn.media.formats.base import Format
from stremn.media.formats.open_formats import OpenFormats, folders_of
from stremn.media.frame_results import FrameResult
from stremn.media.frames import SQUARE, Frame, FrameSource
from stremn.media.masks import Labels, written_labels
from stremn.media.pace import RATE_IF_UNKNOWN
from stremn.media.run_folder import ROWS, add_formats, is_plain_name, refuse_link
from stremn.media.video import open_frames

_WORK = "reformat"


def write_formats(
    out: Path,
    formats: Sequence[Format],
    frames: FrameSource | None = None,
    watch: Callable[[int], None] = lambda done: None,
) -> int:
    """Write a run's masks in further formats, into its folder.

    Args:
        out: the folder of a run; if it is resumed later, the formats hold what is there now.
        formats: which ones.
        frames: the video of the run; formats that show the frames need it.
        watch: called with the number of finished frames.

    Returns:
        How many frames were written.

    Raises:
        StremnError: there is no run in the folder or a part of it is gone, a format needs the
            video, or cannot hold what is there. Then what the folder held stays as it was.
    """
    if not (out / ROWS).is_file():
        raise StremnError(f"{out} holds no run: there is no {ROWS} in it.")
    blind = [chosen.name for chosen in formats if chosen.soft]
    if blind and frames is None:
        raise StremnError(f"The format {blind[0]} shows the frames: add --video, the run's video.")
    for folder in (folder for chosen in formats for folder in folders_of(chosen, out)):
        refuse_link(folder)
    rate, pixel_aspect = _pace(out, frames)
    work = out / ".resume" / _WORK
    done = 0
    with FolderLock(out):
        shutil.rmtree(work, ignore_errors=True)
        made = make_folder(work / "made")
        try:
            opened = OpenFormats(formats, made, work / "parts", 0, rate, pixel_aspect)
            with closing(opened):
                for result in _results(out, frames):
                    opened.write(result)
                    done += 1
                    watch(done)
            add_formats(out, [chosen.name for chosen in formats])
            _put_in_place(made, out)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return done


def _put_in_place(made: Path, out: Path) -> None:
    """Move all files below a folder to the same places below another."""
    for folder in (made, *made.rglob("*/")):
        target = out / folder.relative_to(made)
        if folder != made:
            refuse_link(target)
        make_folder(target)
        for path in folder.iterdir():
            if path.is_file():
                check_target(target / path.name)
                with writing(target / path.name):
                    path.replace(target / path.name)


def _pace(out: Path, frames: FrameSource | None) -> tuple[Fraction, Fraction]:
    """Return the frames per second and the pixel aspect of the video, or of its overlay."""
    if frames is not None and frames.fps:
        rate, pixel_aspect = frames.fps, frames.pixel_aspect
    elif (out / "overlay.mp4").is_file():
        with open_frames(out / "overlay.mp4") as overlay:
            rate, pixel_aspect = overlay.fps or RATE_IF_UNKNOWN, overlay.pixel_aspect
    else:
        rate, pixel_aspect = RATE_IF_UNKNOWN, SQUARE
    return Fraction(rate).limit_denominator(1001), pixel_aspect


def _results(out: Path, frames: FrameSource | None) -> Iterator[FrameResult]:
    """Yield the run's frames with their results."""
    shown = None if frames is None else iter(frames)
    for row in iterate_rows(out / ROWS):
        name = row.get("name")
        if not is_plain_name(name):
            raise StremnError(f"{out / ROWS} names a frame {name!r}, which no run writes.")
        mask = out / "masks" / f"{name}.png"
        try:
            labels = written_labels(mask)
        except OSError as error:
            raise StremnError(f"The mask {mask} is gone or damaged ({error}).") from error
        frame = _frame_without_picture(row, name, labels) if shown is None else _next(shown, name)
        if frame.image.shape[:2] != labels.shape:
            height, width = frame.image.shape[:2]
            raise StremnError(
                f"The video's frame {name} is {width}x{height}, and its mask "
                f"{labels.shape[1]}x{labels.shape[0]}: it is not the video of this run."
            )
        yield _result(frame, labels, row, out / "probabilities" / f"{name}.npz")


def _frame_without_picture(row: dict[str, Any], name: str, labels: Labels) -> Frame:
    black = np.zeros((*labels.shape, 3), np.uint8)
    return Frame(int(row.get("frame", 0)), name, black, row.get("time"))


def _next(shown: Iterator[Frame], name: str) -> Frame:
    for frame in shown:
        if frame.name == name:
            return frame
    raise StremnError(f"The video has no frame {name}: it is not the video of this run.")


def _result(frame: Frame, labels: Labels, row: dict[str, Any], soft: Path) -> FrameResult:
    if soft.is_file():
        try:
            with np.load(io.BytesIO(soft.read_bytes()), allow_pickle=False) as stored:
                ids = tuple(int(item) for item in stored["ids"])
                layers = stored["probabilities"].astype(np.float32)
            if layers.shape != (len(ids), *labels.shape):
                raise ValueError(f"its shape is {layers.shape}")
        except Exception as error:  # whatever a damaged file is taken for
            raise StremnError(
                f"The soft masks {soft} are damaged ({error}). Remove the file: the frame's mask "
                "is taken as it is then."
            ) from error
        return FrameResult(frame, labels, {}, ids, layers)
    followed = row.get("objects")
    ids = tuple(int(item) for item in followed) if isinstance(followed, dict) else ()
    return FrameResult(frame, labels, {}, ids)
