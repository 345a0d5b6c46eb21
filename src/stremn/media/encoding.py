"""Video files out, encoded through PyAV; parts of one video are joined without encoding again."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np

from stremn.core.atomic_files import check_target, replacing, writing
from stremn.errors import StremnError
from stremn.media.frames import Picture

_QUALITY: dict[str, object] = {"crf": "18", "preset": "veryfast", "bf": "0"}
_FORMAT = "yuv420p"


class VideoPart:
    """An H.264 video file that is written frame by frame (MPEG-4 where H.264 is not built in)."""

    def __init__(self, path: Path, rate: Fraction, size: tuple[int, int]) -> None:
        height, width = size
        self.path = path
        self._padding = ((0, height % 2), (0, width % 2), (0, 0))  # 4:2:0 wants even sides
        self._odd = height % 2 or width % 2
        check_target(path)
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        with writing(path):
            self._container = av.open(str(path), "w")
            stream = cast(av.VideoStream, self._container.add_stream(codec, rate=rate))
            stream.width, stream.height = width + width % 2, height + height % 2
            stream.pix_fmt = _FORMAT
            stream.options = dict(_QUALITY) if codec == "libx264" else {}
            self._stream = stream

    def add(self, image: Picture) -> None:
        """Encode one more frame."""
        if self._odd:
            image = np.pad(image, self._padding, mode="edge")
        with writing(self.path):
            for packet in self._stream.encode(encoder_frame(image)):
                self._container.mux(packet)

    def close(self) -> None:
        """Write what the encoder holds and the end of the file."""
        with writing(self.path):
            for packet in self._stream.encode():
                self._container.mux(packet)
            self._container.close()


def encoder_frame(image: Picture) -> av.VideoFrame:
    """Return an image of even sides as the encoder takes it.

    OpenCV converts the colors in a quarter of the time that FFmpeg's scaler takes. The encoder also
    looks at the bytes beside the picture, which are whatever the memory held; here they are 0, so
    that the same pictures always give the same file.
    """
    planes = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), np.uint8)
    frame = av.VideoFrame.from_ndarray(planes, format=_FORMAT)
    for plane in frame.planes:
        rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)
        rows[:, plane.width :] = 0
    return frame


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


def join_videos(parts: Iterable[Path], path: Path) -> None:
    """Join videos of one encoder, one after the other, without encoding them again.

    Raises:
        StremnError: a part is not whole, no permission, disk full.
    """
    with (
        _whole_parts(path),
        replacing(path) as beside,
        av.open(str(beside), "w", format="mp4", options={"movflags": "faststart"}) as joined,
    ):
        stream: av.VideoStream | None = None
        offset = 0
        for part in parts:
            with av.open(str(part), format="mp4") as container:
                source = container.streams.video[0]
                if stream is None:
                    stream = joined.add_stream_from_template(source)
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
