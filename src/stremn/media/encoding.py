"""Video files out, encoded through PyAV; parts of one video are joined without encoding again."""

import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from operator import itemgetter
from pathlib import Path

import av
import numpy as np

from stremn.core.atomic_files import check_target, replacing, writing
from stremn.errors import StremnError
from stremn.media.codecs import H264, LARGEST_SIDE, Pixels, VideoCodec
from stremn.media.containers import file_address
from stremn.media.frames import SQUARE, Picture
from stremn.media.sound import Sound, Timed, sound_packets

_TICK = Fraction(1, 90_000)  # seconds: what MP4 counts times in


class VideoPart:
    """A video file that is written frame by frame."""

    def __init__(
        self,
        path: Path,
        rate: Fraction,
        size: tuple[int, int],
        codec: VideoCodec | None = None,
        pixel_aspect: Fraction = SQUARE,
    ) -> None:
        """Begin a file of (height, width) pictures; without a codec it is H.264 in MP4.

        Raises:
            StremnError: pictures that are too large, no permission, disk full.
        """
        height, width = size
        if max(size) > LARGEST_SIDE:
            raise StremnError(
                f"{path} cannot be written: a video holds pictures up to {LARGEST_SIDE} pixels a "
                f"side, and these are {width}x{height}. --scale makes an overlay smaller."
            )
        self.path = path
        self._codec = codec or H264()
        odd = (height % 2, width % 2) if self._codec.even else (0, 0)
        self._padding = ((0, odd[0]), (0, odd[1]), (0, 0))
        self._odd = any(odd)
        check_target(path)
        with writing(path):
            options = {"fflags": "+bitexact"}  # no random numbers in the file
            self._container = av.open(file_address(path), "w", self._codec.container, options)
            self._stream = self._codec.add_stream(self._container, rate)
            self._stream.width, self._stream.height = width + odd[1], height + odd[0]
            if pixel_aspect != SQUARE:
                self._stream.codec_context.sample_aspect_ratio = pixel_aspect
            self._codec.mark(self._stream)

    def add(self, image: Pixels) -> None:
        """Encode one more frame."""
        if self._odd:
            image = np.pad(image, self._padding, mode="edge")
        with writing(self.path), _encoding(self.path):
            for packet in self._stream.encode(self._codec.frame(image)):
                self._container.mux(packet)

    def close(self) -> None:
        """Write what the encoder holds and the end of the file."""
        with writing(self.path), _encoding(self.path):
            for packet in self._stream.encode():
                self._container.mux(packet)
            self._container.close()


@contextmanager
def _encoding(path: Path) -> Iterator[None]:
    """Turn an encoder's error inside the block into a StremnError about `path`."""
    try:
        yield
    except av.error.ExternalError as error:
        raise StremnError(
            f"The video encoder failed on {path}: {error.strerror}. This happens when memory runs "
            "out; use smaller frames or close other programs."
        ) from error


def write_video(
    path: Path, images: Iterable[Picture], fps: float | int, pixel_aspect: Fraction = SQUARE
) -> None:
    """Write RGB images as one H.264 video; `pixel_aspect` is a pixel's width by its height.

    Raises:
        StremnError: no image, no permission, disk full.
    """
    part: VideoPart | None = None
    with replacing(path) as temporary:
        for image in images:
            if part is None:
                rate = Fraction(fps).limit_denominator(1001)
                size = (image.shape[0], image.shape[1])
                part = VideoPart(temporary, rate, size, pixel_aspect=pixel_aspect)
            part.add(image)
        if part is None:
            raise StremnError(f"There is no image to write to {path}.")
        part.close()


def join_videos(
    parts: Sequence[Path],
    path: Path,
    codec: VideoCodec | None = None,
    *,
    times: Iterable[float] | None = None,
    sound: Sound | None = None,
) -> None:
    """Join videos of one codec (H.264 if none is given), in order, without encoding them again.

    Args:
        parts: the videos, one or more.
        path: the file to write.
        codec: of the videos.
        times: when each frame is shown, in seconds, growing; frames beyond them are left out.
            None is one after the other, at the rate of the first part.
        sound: what is heard; its start is heard at the first frame. None is silence.

    Raises:
        StremnError: a part is not whole, no permission, disk full.
    """
    codec = codec or H264()
    # The plus adds to FFmpeg's flags; one of them lets MP4 take the AAC of transport streams.
    options = {"fflags": "+bitexact"}
    options |= {"movflags": "faststart"} if codec.container in ("mp4", "mov") else {}
    with (
        _whole_parts(path),
        replacing(path) as beside,
        av.open(file_address(beside), "w", format=codec.container, options=options) as joined,
    ):
        with av.open(file_address(parts[0]), format=codec.container) as container:
            source = container.streams.video[0]
            rate = source.average_rate or Fraction(25)
            stream = joined.add_stream_from_template(source)
            stream.time_base = _TICK
            codec.mark(stream)
        shown = (index / rate for index in itertools.count()) if times is None else times
        with sound_packets(sound, joined) as heard:
            seen = _pictures(parts, shown, stream, codec)
            for _, packet in heapq.merge(seen, heard, key=itemgetter(0)):
                joined.mux(packet)


@contextmanager
def _whole_parts(path: Path) -> Iterator[None]:
    """Turn an unreadable part of `path`, as after a full disk, into a StremnError."""
    try:
        yield
    except av.error.InvalidDataError as error:
        raise StremnError(
            f"{path} could not be written: a part of it was cut off. The masks are not affected."
        ) from error


def _pictures(
    parts: Iterable[Path],
    times: Iterable[float | Fraction],
    stream: av.VideoStream,
    codec: VideoCodec,
) -> Iterator[Timed]:
    """Yield the packets of all parts, each shown at its time, the first at 0."""
    remaining = iter(times)
    first: float | Fraction | None = None
    tick = -1
    for part in parts:
        with av.open(file_address(part), format=codec.container) as container:
            for packet in container.demux(container.streams.video[0]):
                if packet.dts is None or packet.pts is None:  # the mark of the end
                    continue
                time = next(remaining, None)
                if time is None:
                    return
                first = time if first is None else first
                length = round((packet.duration or 0) * (packet.time_base or 0) / _TICK)
                tick = max(tick + 1, round((time - first) / _TICK))
                packet.time_base = _TICK
                packet.pts = packet.dts = tick
                packet.duration = length
                packet.stream = stream
                yield float(time - first), packet
