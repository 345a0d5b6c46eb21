"""Frames in: video file, folder or glob of images, camera, URL, array; one frame at a time.

`open_frames` gives a `FrameSource`, which is iterated once and holds one frame. `ReadAhead` lets
reading overlap the model, `WriteBehind` lets writing overlap it; both are bounded, so memory does
not grow with the length of the video.
"""

import glob as globbing
import logging
import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

import av
import cv2
import numpy as np
from av.stream import Stream
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from stremn.errors import StremnError

logger = logging.getLogger(__name__)

Picture = UInt8[np.ndarray, "height width 3"]
T = TypeVar("T")

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
)
# Containers whose header states how long the video is; elsewhere the length is a guess.
_LENGTH_IS_DECLARED = frozenset({"mp4", "matroska", "webm", "avi"})
_LENGTH_TOLERANCE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a video: its index from 0, its name (file stem or five digits), its RGB."""

    index: int
    name: str
    image: Picture


def frame_name(index: int) -> str:
    """Name of a frame that has none of its own: the index in (at least) five digits."""
    return f"{index:05d}"


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts `frame2` before `frame10`."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]


class FrameSource:
    """Frames of one video, read one at a time; iterate once, then close.

    Attributes:
        label: what is read, in words for messages.
        fps: frames per second, or None where the input has no rate (images, arrays).
        size: (height, width) in pixels after rotation; (0, 0) if no frame is left after `start`.
        count: frames from the very first one, as far as the input says; None if unknown.
        names: the name of each frame where they are known beforehand (images), else None.
        start: index of the first frame that is given out.
    """

    def __init__(
        self,
        images: Iterator[Picture],
        *,
        label: str,
        fps: float | int | None = None,
        count: int | None = None,
        names: tuple[str, ...] | None = None,
        start: int = 0,
    ) -> None:
        self.label = label
        self.fps = fps
        self.count = count
        self.names = names
        self.start = start
        self._images = images
        self._first = next(images, None)
        if self._first is None and start == 0:
            self.close()
            raise StremnError(f"{label} holds no frame. Check that it plays, or give another one.")
        self.size = (0, 0) if self._first is None else self._first.shape[:2]

    def name(self, index: int) -> str:
        """Name of the frame at `index`."""
        return frame_name(index) if self.names is None else self.names[index]

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in order; a damaged input ends in a StremnError after the good ones."""
        if self._first is None:
            return
        image: Picture | None = self._first
        self._first = None
        index = self.start
        while image is not None:
            if image.shape[:2] != self.size:
                raise StremnError(
                    f"{self.label} changes size at frame {self.name(index)}: expected "
                    f"{_size_text(self.size)} like the frames before, got "
                    f"{_size_text(image.shape[:2])}. Segment the two parts separately, or resize "
                    "the frames first."
                )
            yield Frame(index, self.name(index), image)
            index += 1
            image = next(self._images, None)

    def close(self) -> None:
        """Release the file, camera or connection."""
        close = getattr(self._images, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


Source = str | Path | int | np.ndarray | Iterable[np.ndarray | Image.Image]


def open_frames(source: Source, *, start: int = 0) -> FrameSource:
    """Open any input as a stream of frames.

    Args:
        source: path of a video or image, folder or glob of images (natural order), camera index
            (or its digits), URL, array `t height width 3` of uint8 RGB, or iterable of such images.
        start: frames to leave out at the front; videos are decoded up to there, so the count is
            exact.

    Raises:
        StremnError: there is no such input, it holds no frame, or it cannot be read.
    """
    if start < 0:
        raise StremnError(f"The first frame must be 0 or later, got {start}.")
    if isinstance(source, int):
        return _open_camera(source, start)
    if isinstance(source, Path):
        return _open_path(source, start)
    if isinstance(source, str):
        return _open_text(source, start)
    return _open_arrays(source, start)


def _open_text(source: str, start: int) -> FrameSource:
    path = Path(source).expanduser()
    if "://" in source:
        return _open_video(source, source, start, live=True)
    if path.exists():
        return _open_path(path, start)
    if source.isdecimal():
        return _open_camera(int(source), start)
    if any(letter in source for letter in "*?["):
        return _open_glob(str(path), start)
    return _open_path(path, start)


def _open_path(path: Path, start: int) -> FrameSource:
    if not path.exists():
        beside = path.parent
        hint = "" if beside.exists() else f" (there is no folder {beside} either)"
        raise StremnError(
            f"There is no file or folder {path}{hint}. Give a video, a folder or glob of images, "
            "a camera index or a URL."
        )
    if path.is_dir():
        return _open_folder(path, start)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return _open_images([path], str(path), start)
    return _open_video(str(path), str(path), start, live=False)


# ---------------------------------------------------------------- images


def _open_folder(folder: Path, start: int) -> FrameSource:
    try:
        entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise StremnError(f"The folder {folder} cannot be read: {error.strerror}.") from error
    paths = [path for path in entries if path.suffix.lower() in IMAGE_SUFFIXES]
    if not paths:
        found = ", ".join(sorted(path.name for path in entries)[:3]) or "nothing"
        raise StremnError(
            f"The folder {folder} holds no images (found: {found}). Expected files such as "
            "00000.jpg or frame1.png directly in it."
        )
    return _open_images(paths, str(folder), start)


def _open_glob(pattern: str, start: int) -> FrameSource:
    paths = [Path(name) for name in globbing.glob(pattern, recursive=True)]  # noqa: PTH207
    paths = [path for path in paths if path.is_file() and not path.name.startswith(".")]
    if not paths:
        raise StremnError(
            f"No file matches {pattern!r}. Check the folder, and quote the pattern so that the "
            "shell does not expand it."
        )
    if len(paths) == 1:
        return _open_path(paths[0], start)
    return _open_images(paths, pattern, start)


def _open_images(paths: list[Path], label: str, start: int) -> FrameSource:
    paths = sorted(paths, key=lambda path: natural_order(str(path.with_suffix(""))))
    by_name: dict[str, Path] = {}
    for path in paths:
        twin = by_name.setdefault(path.stem, path)
        if twin is not path:
            raise StremnError(
                f"{label} holds two images with the same name: {twin} and {path}. Results are "
                f"named by frame, so give one of them, for example '*{twin.suffix}'."
            )
    images = (read_image(path) for path in paths[start:])
    return FrameSource(images, label=label, count=len(paths), names=tuple(by_name), start=start)


def read_image(path: Path) -> Picture:
    """Read an image file as RGB; 16-bit images keep their high byte, EXIF rotation is applied.

    Raises:
        StremnError: the file is damaged, truncated or no image; the message names it.
    """
    try:
        with Image.open(path) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):
                high = np.clip(np.asarray(upright).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
                return np.repeat(high[:, :, None], 3, axis=2)
            return np.array(upright.convert("RGB"))
    except UnidentifiedImageError:
        pass  # some TIFFs, such as 16-bit RGB, are left to OpenCV
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, str(error)) from error
    try:
        pixels = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_COLOR)
    except (cv2.error, OSError) as error:
        raise _unreadable(path, "it is empty or no image") from error
    if pixels is None:
        raise _unreadable(path, "it is no image in a known format")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _unreadable(path: Path, reason: str) -> StremnError:
    return StremnError(
        f"The image {path} cannot be read: {reason}. Frames before it are not affected; "
        "replace or remove the file."
    )


# ---------------------------------------------------------------- arrays


def _open_arrays(
    source: np.ndarray | Iterable[np.ndarray | Image.Image], start: int
) -> FrameSource:
    if isinstance(source, np.ndarray) and source.ndim != 4:
        raise StremnError(
            "An array of frames must have the shape (frames, height, width, 3), got "
            f"{source.shape}."
        )
    count = len(source) if isinstance(source, np.ndarray | list | tuple) else None

    def images() -> Iterator[Picture]:
        for index, image in enumerate(source):
            if index >= start:
                yield as_picture(image, f"Frame {index}")

    return FrameSource(images(), label="The given array", count=count, start=start)


def as_picture(image: np.ndarray | Image.Image, what: str = "The frame") -> Picture:
    """Check that an image is `height width 3` uint8 RGB (PIL images are converted).

    Raises:
        StremnError: another shape or type; the message says which.
    """
    if isinstance(image, Image.Image):
        image = np.array(image.convert("RGB"))
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0 or pixels.dtype != np.uint8:
        raise StremnError(
            f"{what} must be an RGB image of shape (height, width, 3) and type uint8, got shape "
            f"{pixels.shape} and type {pixels.dtype}."
        )
    return pixels


# ---------------------------------------------------------------- camera


def _open_camera(index: int, start: int) -> FrameSource:
    capture = cv2.VideoCapture(index)
    if not capture.isOpened():
        capture.release()
        raise StremnError(
            f"Camera {index} cannot be opened. Check that it is connected and not in use, or try "
            "another index."
        )
    return _from_capture(capture, f"Camera {index}", start)


def _from_capture(capture: cv2.VideoCapture, label: str, start: int) -> FrameSource:
    fps = capture.get(cv2.CAP_PROP_FPS)

    def images() -> Iterator[Picture]:
        try:
            given = 0
            while True:
                ok, pixels = capture.read()
                if not ok:
                    break
                if given >= start:
                    yield np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)
                given += 1
            if given:
                raise StremnError(f"{label} stopped giving frames after {given} frames.")
        finally:
            capture.release()

    return FrameSource(images(), label=label, fps=fps if fps > 0 else None, start=start)


# ---------------------------------------------------------------- video files and streams


def _open_video(address: str, label: str, start: int, *, live: bool) -> FrameSource:
    try:
        container = av.open(address, timeout=(30.0, 30.0) if live else None)
    except (av.FFmpegError, OSError, ValueError) as error:
        what = "The stream" if live else "The file"
        raise StremnError(
            f"{what} {label} cannot be opened as a video: {_reason(error)}. It may be empty, cut "
            "off while it was written, or no video."
        ) from error
    if not container.streams.video:
        container.close()
        raise StremnError(f"{label} holds no video stream (only sound or data).")
    stream = container.streams.video[0]
    stream.thread_type = "SLICE"  # frame threads would lose the frames before a damaged one
    rate = stream.average_rate or stream.guessed_rate
    return FrameSource(
        _decode(container, stream, label, start, live=live),
        label=label,
        fps=float(rate) if rate else None,
        count=stream.frames or None,
        start=start,
    )


def _decode(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    label: str,
    start: int,
    *,
    live: bool,
) -> Iterator[Picture]:
    """Decode in presentation order; stop at damage in a file, step over it in a live stream."""
    decoded = 0
    end = 0.0
    left_out = None
    with closing(container):
        try:
            for packet in container.demux():
                end = max(end, _end_seconds(packet))
                if packet.stream.index != stream.index:
                    continue
                flush = decoded > 0 and not live
                frames, damage = _decode_packet(packet, stream, flush=flush)
                for frame in frames:
                    decoded += 1
                    if decoded > start:
                        yield _to_rgb(frame)
                if damage and decoded and not live:
                    raise _stopped(label, decoded, damage)
                if damage:
                    left_out = damage
                    logger.warning("%s: a damaged part was left out (%s)", label, damage)
        except (av.FFmpegError, OSError) as error:
            raise _stopped(label, decoded, _reason(error)) from error
        if decoded == 0 and left_out:
            raise _stopped(label, 0, left_out)
        if not live:
            _check_length(container, stream, label, decoded, end)


def _decode_packet(
    packet: "av.Packet[Stream]", stream: av.VideoStream, *, flush: bool
) -> tuple[list[av.VideoFrame], str | None]:
    """Frames of one packet and what is wrong with it, if anything.

    With `flush`, the frames that a damaged packet would have pushed out of the decoder, that is
    those shown before it, are still returned.
    """
    context = stream.codec_context
    try:
        frames = context.decode(packet)
    except av.error.InvalidDataError as error:
        late = _drain(context) if flush else []
        shown = packet.pts if packet.pts is not None else -1
        before = [frame for frame in late if (frame.pts or 0) < shown]
        return _until_corrupt(before), _reason(error)
    sound = _until_corrupt(frames)
    return sound, None if len(sound) == len(frames) else "the picture is damaged"


def _until_corrupt(frames: list[av.VideoFrame]) -> list[av.VideoFrame]:
    """The frames before the first that the decoder had to make up in part."""
    return list(takewhile(lambda frame: not frame.is_corrupt, frames))


def _drain(context: av.VideoCodecContext) -> list[av.VideoFrame]:
    try:
        return context.decode(None)
    except av.FFmpegError:
        return []


def _end_seconds(packet: "av.Packet[Stream]") -> float:
    if packet.pts is None or packet.time_base is None:
        return 0.0
    return float((packet.pts + (packet.duration or 0)) * packet.time_base)


def _to_rgb(frame: av.VideoFrame) -> Picture:
    pixels = frame.to_ndarray(format="rgb24")
    quarter_turns = round(frame.rotation / 90) % 4  # counter-clockwise, as numpy turns
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns)) if quarter_turns else pixels


def _check_length(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    label: str,
    decoded: int,
    end: float,
) -> None:
    """A file cut off at the end gives no error of its own: compare with what its header says."""
    kinds = set(container.format.name.split(","))
    if not kinds & _LENGTH_IS_DECLARED:
        return
    if "avi" in kinds:  # its duration is guessed from the file size, its frame count is not
        rate = stream.average_rate
        declared = float(stream.frames / rate) if rate else 0.0
    else:
        start = container.start_time or 0
        declared = (start + (container.duration or 0)) / av.time_base
    if decoded and end < declared - _LENGTH_TOLERANCE_SECONDS:
        raise _stopped(label, decoded, f"the file is cut off at {end:.1f} s of {declared:.1f} s")


def _stopped(label: str, decoded: int, reason: str) -> StremnError:
    if decoded == 0:
        return StremnError(f"{label} holds no frame that can be decoded: {reason}.")
    return StremnError(
        f"{label} is damaged after frame {frame_name(decoded - 1)}: {reason}. The {decoded} frames "
        "before it are complete; to go on past it, repair the file (for example by re-encoding)."
    )


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")


def _size_text(size: tuple[int, ...]) -> str:
    """Width first, as people say sizes."""
    return f"{size[1]}x{size[0]}"


# ---------------------------------------------------------------- overlap with the model


class _Failure(NamedTuple):
    error: BaseException


class _End(NamedTuple):
    pass


class ReadAhead(Generic[T]):
    """Iterate something in a thread, at most `depth` items ahead.

    Errors come out of the iteration after the items before them. Use it as a context manager, or
    close it, so that the thread ends when the iteration is left early.
    """

    def __init__(self, items: Iterable[T], depth: int = 4) -> None:
        if depth < 1:
            raise StremnError(f"The read-ahead depth must be 1 or more, got {depth}.")
        self._queue: queue.Queue[T | _Failure | _End] = queue.Queue(maxsize=depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._fill, args=(items,), name="stremn-read-ahead", daemon=True
        )
        self._thread.start()

    def _fill(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                if not self._offer(item):
                    return
            self._offer(_End())
        except BaseException as error:
            self._offer(_Failure(error))

    def _offer(self, item: T | _Failure | _End) -> bool:
        """Put an item as soon as there is room; False once closed."""
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[T]:
        """Yield the items in order."""
        while not self._stop.is_set():
            item = self._queue.get()
            if isinstance(item, _End):
                break
            if isinstance(item, _Failure):
                raise item.error
            yield item
        self.close()

    def close(self) -> None:
        """Stop the thread and wait for it; safe to call twice."""
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class WriteBehind(Generic[T]):
    """Call `write(item)` in a thread, at most `depth` items behind.

    An error in the thread stops the writing and is raised by the next `put`, `flush` or `close`.
    """

    def __init__(self, write: Callable[[T], None], depth: int = 4) -> None:
        if depth < 1:
            raise StremnError(f"The write-behind depth must be 1 or more, got {depth}.")
        self._write = write
        self._queue: queue.Queue[T | _End] = queue.Queue(maxsize=depth)
        self._error: BaseException | None = None
        self._told = False
        self._closed = False
        self._thread = threading.Thread(target=self._drain, name="stremn-write-behind", daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        while True:
            item = self._queue.get()
            try:
                if isinstance(item, _End):
                    return
                if self._error is None:
                    self._write(item)
            except BaseException as error:
                self._error = error
            finally:
                self._queue.task_done()

    def put(self, item: T) -> None:
        """Hand over one item; waits while `depth` items are not written yet."""
        self._raise_error()
        self._queue.put(item)

    def flush(self) -> None:
        """Wait until everything handed over is written."""
        self._queue.join()
        self._raise_error()

    def close(self) -> None:
        """Write what is left and stop the thread; safe to call twice."""
        if not self._closed:
            self._closed = True
            self._queue.put(_End())
            self._thread.join()
        if not self._told:
            self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            self._told = True
            raise self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        except Exception as late:
            logger.warning("Writing failed as well: %s", late)
