"""Formats that contain the frames: a video, or a folder of image files."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from stremn.errors import StremnError
from stremn.media.codecs import LARGEST_SIDE, VideoCodec
from stremn.media.files import make_folder
from stremn.media.formats.base import Place, WrittenAtOnce
from stremn.media.formats.looks import Look
from stremn.media.formats.times import FrameTimes
from stremn.media.frame_results import FrameResult
from stremn.media.overlay_parts import OverlayParts


@dataclass(frozen=True)
class VideoFormat:
    """One video, `NAME.mp4` or as the codec has it.

    largest: side in pixels that the codec takes.
    """

    name: str
    look: Look
    codec: VideoCodec
    soft: bool = True
    largest: int = LARGEST_SIDE

    @property
    def files(self) -> tuple[str, ...]:
        """One file."""
        return (f"{self.name}{self.codec.suffix}",)

    def check(self, ids: Collection[int], size: tuple[int, int]) -> None:
        """Refuse frames that are too large."""
        height, width = size
        if max(size) > self.largest:
            raise StremnError(
                f"The format {self.name} holds frames up to {self.largest} pixels a side, and "
                f"these are {width}x{height}. Choose a format of single images, such as cut-out."
            )

    def open(self, place: Place) -> VideoWriter:
        """Begin or go on."""
        return VideoWriter(place, self.look, self.codec, place.out / self.files[0])


class VideoWriter:
    """Encodes parts, which are joined when it is closed."""

    def __init__(self, place: Place, look: Look, codec: VideoCodec, path: Path) -> None:
        self._look = look
        self._path = path
        self._count = place.written
        self._closed = False
        folder = make_folder(place.work)
        self._parts = OverlayParts(
            folder, place.rate, stem="part", codec=codec, pixel_aspect=place.pixel_aspect
        )
        self._parts.remove_from(place.written)
        self._times = FrameTimes(place)

    def write(self, result: FrameResult) -> None:
        """Encode a frame."""
        self._parts.add(self._count, self._look(result))
        self._times.add(result.frame)
        self._count += 1

    def checkpoint(self) -> list[Path]:
        """End the part."""
        self._parts.close_part()
        return [*self._parts.take_new(), self._times.path]

    def close(self) -> None:
        """Join the parts."""
        if self._closed:
            return
        self._closed = True
        self._parts.close_part()
        self._times.close()
        self._parts.join(self._path, self._count, times=self._times.read())


@dataclass(frozen=True)
class FolderFormat:
    """A folder with one file per frame, `NAME/FRAME.png` or another suffix.

    encode: gives a file's content.
    require: raises StremnError if that is not possible here.
    """

    name: str
    encode: Callable[[FrameResult], bytes]
    suffix: str = ".png"
    soft: bool = True
    require: Callable[[], object] = lambda: None

    @property
    def files(self) -> tuple[str, ...]:
        """One file per frame."""
        return (f"{self.name}/{{name}}{self.suffix}",)

    def check(self, ids: Collection[int], size: tuple[int, int]) -> None:
        """Accept everything."""
        self.require()

    def open(self, place: Place) -> FolderWriter:
        """Begin or go on."""
        return FolderWriter(make_folder(place.out / self.name), self.encode, self.suffix)


class FolderWriter(WrittenAtOnce):
    """Writes every frame's file."""

    def __init__(self, folder: Path, encode: Callable[[FrameResult], bytes], suffix: str) -> None:
        super().__init__()
        self._folder = folder
        self._encode = encode
        self._suffix = suffix

    def write(self, result: FrameResult) -> None:
        """Write a frame's file."""
        self.put(self._folder / f"{result.frame.name}{self._suffix}", self._encode(result))


def png_of(look: Look) -> Callable[[FrameResult], bytes]:
    """Return a function that renders a frame to the content of a PNG file."""

    def encode(result: FrameResult) -> bytes:
        content = io.BytesIO()
        Image.fromarray(look(result)).save(content, "png", compress_level=3)
        return content.getvalue()

    return encode
