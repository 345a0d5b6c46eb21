"""Open inputs as frames: video file, folder or glob of images, camera, URL, array.

`open_frames` gives a `FrameSource`, which is iterated once and holds one frame.
"""

import glob as globbing
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from stremn.errors import StremnError
from stremn.media.animations import open_animation
from stremn.media.decoding import open_video
from stremn.media.frames import FrameSource, Picture, Shot
from stremn.media.pictures import check_pixels, opened_picture
from stremn.media.ranges import frames_within
from stremn.media.stored_pictures import StoredPictures

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
)
Source = str | Path | int | np.ndarray | Iterable[np.ndarray | Image.Image]


def open_frames(
    source: Source, *, start: int | str = 0, end: int | str | None = None
) -> FrameSource:
    """Open any input as a stream of frames.

    Args:
        source: path of a video or image, folder or glob of images (natural order), camera index,
            URL, array `t height width 3` of uint8 RGB, or iterable of such images. Text of digits,
            such as "0", is the file or folder of that name where there is one, else a camera;
            an int is always a camera, a `Path` always a file or folder.
        start: frames to leave out at the front; videos are decoded up to there, so the count is
            exact. As text it is a moment (see `stremn.media.ranges`), and must be in the video.
        end: the first frame that is not read any more, as a number or as a moment.

    Raises:
        StremnError: there is no such input, it holds no frame, or it cannot be read; a moment
            that is none, or lies outside the video.
    """
    if isinstance(start, str) or isinstance(end, str):
        # An iterator would lose its first frame; like this one it has no rate and no known end.
        again = iter([np.zeros((1, 1, 3), np.uint8)]) if isinstance(source, Iterator) else source
        with _open(again, 0) as frames:
            start, end = frames_within(frames, start, end)
    if start < 0:
        raise StremnError(f"The first frame must be 0 or later, got {start}.")
    frames = _open(source, start)
    frames.stop = end
    return frames


def _open(source: Source, start: int) -> FrameSource:
    if isinstance(source, int):
        return _open_camera(source, start)
    if isinstance(source, Path):
        return _open_path(source, start)
    if isinstance(source, str):
        return _open_text(source, start)
    return _open_arrays(source, start)


def _open_text(source: str, start: int) -> FrameSource:
    if "://" in source:
        return open_video(source, source, start, live=True)
    path = Path(source)
    with suppress(RuntimeError):  # "~x" where there is no user x
        path = path.expanduser()
    if is_there(path):  # before cameras: a folder of frames may be called "0"
        return _open_path(path, start)
    if source.isdecimal():
        return _open_camera(int(source), start, f" (there is no file or folder {path} either)")
    if any(letter in source for letter in "*?["):
        return _open_glob(str(path), start)
    return _open_path(path, start)


def _open_path(path: Path, start: int) -> FrameSource:
    if not is_there(path):
        beside = path.parent
        hint = "" if beside.exists() else f" (there is no folder {beside} either)"
        raise StremnError(
            f"There is no file or folder {path}{hint}. Give a video, a folder or glob of images, "
            "a camera index or a URL."
        )
    if path.is_dir():
        return _open_folder(path, start)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        animation = open_animation(path, start)
        if animation is not None:
            return animation
        return _open_images([path], str(path), start)
    return open_video(str(path), str(path), start, live=False)


def is_there(path: Path) -> bool:
    """Return whether there is a file or folder; raises StremnError where that may not be asked."""
    try:
        return path.exists()
    except OSError as error:
        raise StremnError(
            f"{path} cannot be opened: {error.strerror}. Check the name and its rights."
        ) from error


def listed(folder: Path) -> list[Path]:
    """Return what is in a folder but hidden files; raises StremnError if it cannot be read."""
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise StremnError(f"The folder {folder} cannot be read: {error.strerror}.") from error


# ---------------------------------------------------------------- images


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts `frame2` before `frame10`."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]


def _open_folder(folder: Path, start: int) -> FrameSource:
    entries = listed(folder)
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
    stored = StoredPictures(len(paths), lambda index: read_image(paths[index]), label)
    return FrameSource(
        stored.forward(start),
        label=label,
        count=len(paths),
        names=tuple(by_name),
        files=tuple(path.name for path in paths),
        start=start,
        recording=stored,
    )


_ORIENTATION, _SIDEWAYS = 0x0112, 5  # EXIF: from 5 on, width and height change places


def read_image(path: Path) -> Picture:
    """Read an image file as RGB; 16-bit images keep their high byte, EXIF rotation is applied.

    Raises:
        StremnError: the file is damaged, truncated or no image; the message names it.
    """
    return read_reduced(path, None)[0]


def read_reduced(path: Path, about: int | None) -> tuple[Picture, tuple[int, int]]:
    """Read an image of which `about` pixels a side are enough, and its full (height, width).

    A large JPEG is decoded at a half, a quarter or an eighth, which is several times as fast; other
    images come as they are. Otherwise as `read_image`.
    """
    try:
        with opened_picture(path) as image:
            full = (
                image.size
                if image.getexif().get(_ORIENTATION, 1) >= _SIDEWAYS
                else (image.size[1], image.size[0])
            )
            if about is not None:
                image.draft("RGB", (about, about))
            image.load()
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):
                high = np.clip(np.asarray(upright).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
                return np.repeat(high[:, :, None], 3, axis=2), full
            return np.array(upright.convert("RGB")), full
    except UnidentifiedImageError:
        pass  # some TIFFs, such as 16-bit RGB, are left to OpenCV
    except OSError as error:
        raise _unreadable(path, str(error)) from error
    try:
        check_pixels(*_tiff_size(path))
        pixels = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_COLOR)
    except OSError as error:
        raise _unreadable(path, str(error)) from error
    except cv2.error as error:
        raise _unreadable(path, "it is damaged") from error
    if pixels is None:
        raise _unreadable(path, "it is not an image in a known format")
    picture = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)
    return picture, (picture.shape[0], picture.shape[1])


def _tiff_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of a TIFF from its header; raise OSError if it is none."""
    try:
        with path.open("rb") as file:
            tags = ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
        return int(tags[_COLUMNS]), int(tags[_ROWS])
    except Exception as error:  # whatever a header that is none is taken for
        raise OSError("it is empty or no image in a known format") from error


_ROWS, _COLUMNS = 257, 256  # TIFF's tags


def _unreadable(path: Path, reason: str) -> StremnError:
    return StremnError(
        f"The image {path} cannot be read: {reason}. Replace or remove the file; frames before it "
        "are not affected."
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

    def images() -> Iterator[Shot]:
        for index, image in enumerate(source):
            if index >= start:
                yield Shot(as_picture(image, f"Frame {index}"))

    label, stored = "The given array", None
    if isinstance(source, np.ndarray | list | tuple):
        pictures = source
        stored = StoredPictures(
            len(pictures), lambda index: as_picture(pictures[index], f"Frame {index}"), label
        )
    return FrameSource(images(), label=label, count=count, start=start, recording=stored)


def as_picture(image: np.ndarray | Image.Image, what: str = "The frame") -> Picture:
    """Check that an image is `height width 3` uint8 RGB (PIL images are converted).

    Raises:
        StremnError: another shape or type; the message says which.
    """
    if isinstance(image, Image.Image):
        try:
            check_pixels(*image.size)
            image = np.array(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:  # it may be decoded only now
            raise StremnError(f"{what} cannot be read: {error}.") from error
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0 or pixels.dtype != np.uint8:
        raise StremnError(
            f"{what} must be an RGB image of shape (height, width, 3) and type uint8, got shape "
            f"{pixels.shape} and type {pixels.dtype}.{_how_to_convert(pixels)}"
        )
    return np.ascontiguousarray(pixels)  # torch takes no mirrored or reversed views


def _how_to_convert(pixels: np.ndarray) -> str:
    """Return what to do with an array that is no RGB image; "" if it is no image at all."""
    if pixels.ndim == 2:
        return " It is gray, so repeat it: np.repeat(frame[..., None], 3, axis=2)."
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        return " Drop the fourth channel: frame[..., :3]."
    if pixels.ndim == 3 and pixels.shape[2] == 3 and np.issubdtype(pixels.dtype, np.floating):
        return " If its values are in [0, 1]: (frame * 255).round().astype(np.uint8)."
    return ""


# ---------------------------------------------------------------- camera


def _open_camera(index: int, start: int, hint: str = "") -> FrameSource:
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(
        cv2.utils.logging.LOG_LEVEL_SILENT
    )  # OpenCV would tell its own story of a camera that is not there
    try:
        capture = cv2.VideoCapture(index)
    except cv2.error as error:  # no 32-bit number: a mistyped name of digits
        raise _no_camera(index, hint) from error
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not capture.isOpened():
        capture.release()
        raise _no_camera(index, hint)
    return _from_capture(capture, f"Camera {index}", start)


def _no_camera(index: int, hint: str) -> StremnError:
    return StremnError(
        f"Camera {index} cannot be opened{hint}. Check that it is connected and not in use, or try "
        "another index."
    )


def _from_capture(capture: cv2.VideoCapture, label: str, start: int) -> FrameSource:
    fps = capture.get(cv2.CAP_PROP_FPS)

    def images() -> Iterator[Shot]:
        try:
            given = 0
            began = 0.0
            while True:
                ok, pixels = capture.read()
                if not ok:
                    break
                now = monotonic()
                began = began if given else now
                if given >= start:
                    image = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)
                    yield Shot(image, now - began)
                given += 1
            if given:
                raise StremnError(f"{label} stopped giving frames after {given} frames.")
        finally:
            capture.release()

    return FrameSource(images(), label=label, fps=fps if fps > 0 else None, start=start, live=True)
