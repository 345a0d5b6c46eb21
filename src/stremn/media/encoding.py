"""Video files out, encoded through PyAV; parts of one video are joined without encoding again."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from stremn.core.atomic_files import check_target, replacing, writing
from stremn.errors import StremnError
from stremn.media.codecs import H264, Pixels, VideoCodec
from stremn.media.frames import Picture


class VideoPart:
    """A video file that is written frame by frame."""

    def __init__(
        self, path: Path, rate: Fraction, size: tuple[int, int], codec: VideoCodec | None = None
    ) -> None:
        """Begin a file of (height, width) pictures; without a codec it is H.264 in MP4."""
        height, width = size
        self.path = path
        self._codec = codec or H264()
        odd = (height % 2, width % 2) if self._codec.even else (0, 0)
        self._padding = ((0, odd[0]), (0, odd[1]), (0, 0))
        self._odd = any(odd)
        check_target(path)
        with writing(path):
            options = {"fflags": "bitexact"}  # no random numbers in the file
            self._container = av.open(str(path), "w", self._codec.container, options)
            self._stream = self._codec.add_stream(self._container, rate)
            self._stream.width, self._stream.height = width + odd[1], height + odd[0]
            self._codec.mark(self._stream)

    def add(self, image: Pixels) -> None:
        """Encode one more frame."""
        if self._odd:
            image = np.pad(image, self._padding, mode="edge")
        with writing(self.path):
            for packet in self._stream.encode(self._codec.frame(image)):
                self._container.mux(packet)

    def close(self) -> None:
        """Write what the encoder holds and the end of the file."""
        with writing(self.path):
            for packet in self._stream.encode():
                self._container.mux(packet)
            self._container.close()


def write_video(path: Path, images: Iterable[Picture], fps: float | int) -> None:
    """Write RGB images as one H.264 video.

    Raises:
        StremnError: no image, no permission, disk full.
    """
    part: VideoPart | None = None
    with replacing(path) as temporary:
        for image in images:
            if part is None:
                rate = Fraction(fps).limit_denominator(1001)
                part = VideoPart(temporary, rate, (image.shape[0], image.shape[1]))
            part.add(image)
        if part is None:
            raise StremnError(f"There is no image to write to {path}.")
        part.close()


def join_videos(parts: Iterable[Path], path: Path, codec: VideoCodec | None = None) -> None:
    """Join videos of one codec (H.264 if none is given), in order, without encoding them again.

    Raises:
        StremnError: a part is not whole, no permission, disk full.
    """
    codec = codec or H264()
    options = {"fflags": "bitexact"}
    options |= {"movflags": "faststart"} if codec.container in ("mp4", "mov") else {}
    with (
        _whole_parts(path),
        replacing(path) as beside,
        av.open(str(beside), "w", format=codec.container, options=options) as joined,
    ):
        stream: av.VideoStream | None = None
        offset = 0
        for part in parts:
            with av.open(str(part), format=codec.container) as container:
                source = container.streams.video[0]
                if stream is None:
                    stream = joined.add_stream_from_template(source)
                    codec.mark(stream)
                offset += _copy(container, source, joined, stream, offset)


@contextmanager
def _whole_parts(path: Path) -> Iterator[None]:
    """Say in words that a part of `path` cannot be read, as when the disk was full before."""
    try:
        yield
    except av.error.InvalidDataError as error:
        raise StremnError(
            f"{path} could not be written: a part of it was cut off. The masks are not affected."
        ) from error


def _copy(
    container: av.container.InputContainer,
    source: av.VideoStream,
    joined: av.container.OutputContainer,
    stream: av.VideoStream,
    offset: int,
) -> int:
    """Copy all packets, `offset` ticks later; returns the length in ticks of the source."""
    length = 0
    for packet in container.demux(source):
        if packet.dts is None or packet.pts is None:  # the mark of the end
            continue
        length = max(length, packet.pts + (packet.duration or 0))
        packet.pts += offset
        packet.dts += offset
        packet.stream = stream
        joined.mux(packet)
    return length
