"""Codecs of output videos: codec, container and pixel format."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, cast

import av
import cv2
import numpy as np
from jaxtyping import UInt8

_BLOCK = 16  # pixels a side that encoders look at together
_BT601, _VIDEO_LEVELS = 6, 1  # FFmpeg's numbers

Pixels = UInt8[np.ndarray, "height width channels"]
"""RGB, or RGBA with straight (not premultiplied) transparency."""

LARGEST_SIDE = 16384
"""Pixels of a side that H.264 takes, at most."""


class VideoCodec(Protocol):
    """A way to encode videos.

    Attributes:
        suffix: of its files.
        container: FFmpeg's name of the container.
        even: whether sides must be even numbers; others are padded by a pixel.
    """

    @property
    def suffix(self) -> str: ...  # noqa: D102
    @property
    def container(self) -> str: ...  # noqa: D102
    @property
    def even(self) -> bool: ...  # noqa: D102

    def add_stream(self, container: av.container.OutputContainer, rate: Fraction) -> av.VideoStream:
        """Add a stream, without a size yet."""

    def mark(self, stream: av.VideoStream) -> None:
        """Write the metadata that players expect into a stream."""

    def frame(self, picture: Pixels) -> av.VideoFrame:
        """Convert a picture to the encoder's format."""


@dataclass(frozen=True)
class H264:
    """H.264 in MP4, which everything plays; MPEG-4 where H.264 is not built in.

    quality: x264's constant rate factor; 18 looks almost like the original, 0 is lossless.
    """

    quality: int = 18
    suffix: str = ".mp4"
    container: str = "mp4"
    even: bool = True  # 4:2:0

    def add_stream(self, container: av.container.OutputContainer, rate: Fraction) -> av.VideoStream:
        """Add a stream, without a size yet."""
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream = cast(av.VideoStream, container.add_stream(codec, rate=rate))
        stream.pix_fmt = "yuv420p"
        # Players take HD without these marks for BT.709 and shift its colors; `frame` makes BT.601.
        stream.codec_context.colorspace = _BT601
        stream.codec_context.color_range = _VIDEO_LEVELS
        if codec == "libx264":
            # With its macroblock tree x264 reads memory that it never wrote, in small pictures at
            # least: the same pictures gave different files.
            stream.options = {"crf": str(self.quality), "preset": "veryfast", "bf": "0"}
            stream.options |= {"x264-params": "mbtree=0"}
        return stream

    def mark(self, stream: av.VideoStream) -> None:
        """Do nothing: no mark is needed."""

    def frame(self, picture: Pixels) -> av.VideoFrame:
        """Convert a picture to the encoder's format.

        OpenCV converts the colors in a quarter of the time that FFmpeg's scaler takes.
        """
        planes = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420), np.uint8)
        return _clean(av.VideoFrame.from_ndarray(planes, format="yuv420p"))


@dataclass(frozen=True)
class Transparent:
    """A codec that keeps transparency; colors are BT.709 and say so.

    options: of the encoder, by name.
    tag: metadata that players look for.
    """

    encoder: str
    pixels: str
    suffix: str
    container: str
    even: bool
    options: tuple[tuple[str, str], ...]
    tag: tuple[str, str] | None = None

    def add_stream(self, container: av.container.OutputContainer, rate: Fraction) -> av.VideoStream:
        """Add a stream, without a size yet."""
        stream = cast(av.VideoStream, container.add_stream(self.encoder, rate=rate))
        stream.pix_fmt = self.pixels
        stream.options = dict(self.options)
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1  # video levels
        return stream

    def mark(self, stream: av.VideoStream) -> None:
        """Write the metadata that players expect into a stream."""
        if self.tag is not None:
            name, value = self.tag
            stream.metadata[name] = value

    def frame(self, picture: Pixels) -> av.VideoFrame:
        """Convert a picture to the encoder's format."""
        height, width = picture.shape[:2]
        margins = ((0, -height % _BLOCK), (0, -width % _BLOCK), (0, 0))
        frame = av.VideoFrame.from_ndarray(np.pad(picture, margins, mode="edge"), format="rgba")
        frame = frame.reformat(format=self.pixels, dst_colorspace="ITU709", dst_color_range="MPEG")
        return _without_margins(_clean(frame), width, height)


def vp9_alpha() -> Transparent:
    """Return VP9 with transparency in WebM: small, played by Chrome, Firefox, Edge and OBS."""
    options = (("crf", "20"), ("b:v", "0"), ("deadline", "good"), ("cpu-used", "5"))
    return Transparent(
        "libvpx-vp9",
        "yuva420p",
        ".webm",
        "webm",
        even=True,
        options=(*options, ("auto-alt-ref", "0")),  # which transparency does not go with
        tag=("alpha_mode", "1"),
    )


def prores_4444() -> Transparent:
    """Return ProRes 4444 in MOV: large, for Premiere, Final Cut, Resolve and After Effects."""
    options = (("profile", "4444"), ("vendor", "apl0"), ("alpha_bits", "16"))
    return Transparent("prores_ks", "yuva444p10le", ".mov", "mov", even=False, options=options)


def _without_margins(frame: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
    """Return the frame without the margins at the right and bottom.

    The encoder of ProRes looks at whole blocks; without margins it would see other memory.
    """
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1)
    )
    crop = graph.add("crop", f"{width}:{height}:0:0")
    sink = graph.add("buffersink")
    source.link_to(crop)
    crop.link_to(sink)
    graph.configure()
    graph.push(frame)
    cropped = cast(av.VideoFrame, graph.pull())
    cropped.time_base = Fraction(0)  # none of its own: the stream gives it its time
    return cropped


def _clean(frame: av.VideoFrame) -> av.VideoFrame:
    """Set the bytes beside the picture to 0.

    Encoders look at them too, and they are whatever the memory held; the same pictures are to give
    the same file.
    """
    for plane, component in zip(frame.planes, frame.format.components, strict=True):
        rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)
        rows[:, plane.width * -(-component.bits // 8) :] = 0
    return frame
