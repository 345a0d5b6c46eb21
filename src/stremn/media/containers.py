"""Open video files and addresses with PyAV, and keep FFmpeg from opening anything else."""

from fractions import Fraction
from math import cos, radians, sin
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.sidedata.sidedata import SideData

from stremn.errors import StremnError
from stremn.media.frames import SQUARE, Picture, frame_name
from stremn.media.pictures import check_pixels

CONTAINERS = frozenset({
    "mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "asf", "ogg",
    "gif", "apng", "mxf", "dv", "nut", "rm", "wtv", "ivf", "h264", "hevc", "m4v", "mjpeg", "av1",
    "obu", "vc1", "webp", "webp_pipe", "gif_pipe", "yuv4mpegpipe",
})  # fmt: skip
"""FFmpeg's names of the formats that are read; those that name other files are not among them."""

PROTOCOLS = {
    "http": "http,https,tcp,tls,httpproxy",
    "https": "http,https,tcp,tls,httpproxy",
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsps,rtsp,rtp,udp,tcp,tls",
}
"""Kinds of addresses that are opened, and what FFmpeg may use for each."""


def opened_stream(
    address: str, label: str, *, live: bool
) -> tuple[av.container.InputContainer, av.VideoStream]:
    """Open a video, and find its first video stream; the caller closes the container.

    Raises:
        StremnError: it cannot be opened, or holds no video.
    """
    location, options = _location(address, live=live)
    try:
        container = av.open(location, options=options, timeout=(30.0, 30.0) if live else None)
    except (av.FFmpegError, OSError, ValueError) as error:
        what = "The stream" if live else "The file"
        advice = (
            "Check the address, and that it can be reached from here."
            if live
            else "It may be empty, cut off while it was written, or no video."
        )
        raise StremnError(
            f"{what} {label} cannot be opened as a video: {reason_of(error)}. {advice}"
        ) from error
    if not container.streams.video:
        container.close()
        raise StremnError(f"{label} holds no video stream (only sound or data).")
    stream = container.streams.video[0]
    if getattr(stream, "codec_context", None) is None:
        container.close()
        raise stopped(label, 0, "its codec is not known here, or its header is damaged")
    _check_size(stream, container, label)
    stream.thread_type = "SLICE"  # frame threads would lose the frames before a damaged one
    return container, stream


def _location(address: str, *, live: bool) -> tuple[str, dict[str, str]]:
    """Return what FFmpeg is to open, and the options that keep it from opening anything else.

    Without them a playlist, or a path that looks like a protocol ("concat:", "subfile,,"), makes it
    read other files of this computer or fetch other addresses.
    """
    if not live:
        return file_address(Path(address)), _limits("file", CONTAINERS)
    scheme = address.partition("://")[0].lower()
    if scheme not in PROTOCOLS:
        raise StremnError(
            f"The address {address} is of a kind that is not opened: {scheme}://. Use "
            f"{', '.join(f'{name}://' for name in PROTOCOLS)}, or the path of a file."
        )
    formats = frozenset({"rtsp"}) if scheme.startswith("rtsp") else CONTAINERS
    return address, _limits(PROTOCOLS[scheme], formats)


def file_address(path: Path) -> str:
    """Return the path as FFmpeg takes it: without the prefix "10:30/a.mp4" would be a protocol."""
    return f"file:{path.absolute()}"


def _limits(protocols: str, formats: frozenset[str]) -> dict[str, str]:
    return {"protocol_whitelist": protocols, "format_whitelist": ",".join(sorted(formats))}


def _check_size(stream: av.VideoStream, container: av.container.InputContainer, label: str) -> None:
    """Refuse pictures that are too large, before the decoder allocates memory."""
    try:
        if stream.width or stream.height:
            check_pixels(stream.width, stream.height)
    except OSError as error:
        container.close()
        raise stopped(label, 0, str(error)) from error


def to_rgb(frame: av.VideoFrame) -> Picture:
    """Return a decoded frame as RGB, turned and mirrored as the file says."""
    # One thread: otherwise FFmpeg starts threads for every frame, which wait for the model's.
    pixels = frame.to_ndarray(format="rgb24", threads=1)
    a, b, c, d = _shown_at(frame)
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _shown_at(frame: av.VideoFrame) -> tuple[float, float, float, float]:
    """Return a, b, c, d: the pixel x, y is shown at ax + cy, bx + dy, moved into the picture."""
    try:
        said = cast(SideData | None, frame.side_data.get("DISPLAYMATRIX"))
    except ValueError:  # PyAV tells only the angle beside facts that it does not know
        turn = radians(frame.rotation)
        return cos(turn), -sin(turn), sin(turn), cos(turn)
    if said is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(memoryview(said), np.int32)[:5].tolist()
    return a, b, c, d


def pixel_aspect(stream: av.VideoStream, size: tuple[int, int]) -> Fraction:
    """Return the width of a pixel by its height, in pictures of `size` (height, width) of a stream.

    It is square where nothing is said. Pictures that lie on their side in the file are stood up,
    and their pixels with them.
    """
    aspect = stream.sample_aspect_ratio or SQUARE
    if size == (stream.width, stream.height) and stream.width != stream.height:
        aspect = 1 / aspect
    return aspect if 0.1 < aspect < 10 else SQUARE


def stopped(label: str, decoded: int, reason: str) -> StremnError:
    """Return the error of a video that is damaged after `decoded` frames."""
    if decoded == 0:
        return StremnError(f"{label} holds no frame that can be decoded: {reason}.")
    return StremnError(
        f"{label} is damaged after frame {frame_name(decoded - 1)}: {reason}. The {decoded} frames "
        "before it are complete. To continue past it, repair the file (for example re-encode it)."
    )


def reason_of(error: Exception) -> str:
    """Return FFmpeg's message without the error number."""
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")
