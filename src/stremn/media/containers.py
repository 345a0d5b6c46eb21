"""Open video files and addresses with PyAV, and keep FFmpeg from opening anything else."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

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
        raise stopped(label, 0, "its header is damaged")
    _check_size(stream, container, label)
    stream.thread_type = "SLICE"  # frame threads would lose the frames before a damaged one
    return container, stream


def _location(address: str, *, live: bool) -> tuple[str, dict[str, str]]:
    """Return what FFmpeg is to open, and the options that keep it from opening anything else.

    Without them a playlist, or a path that looks like a protocol ("concat:", "subfile,,"), makes it
    read other files of this computer or fetch other addresses.
    """
    if not live:  # the prefix keeps it from looking for a protocol in the path
        return f"file:{Path(address).absolute()}", _limits("file", CONTAINERS)
    scheme = address.partition("://")[0].lower()
    if scheme not in PROTOCOLS:
        raise StremnError(
            f"The address {address} is of a kind that is not opened: {scheme}://. Use "
            f"{', '.join(f'{name}://' for name in PROTOCOLS)}, or the path of a file."
        )
    formats = frozenset({"rtsp"}) if scheme.startswith("rtsp") else CONTAINERS
    return address, _limits(PROTOCOLS[scheme], formats)


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
    """Return a decoded frame as RGB, turned as the file says."""
    # One thread: otherwise FFmpeg starts threads for every frame, which wait for the model's.
    pixels = frame.to_ndarray(format="rgb24", threads=1)
    quarter_turns = round(frame.rotation / 90) % 4  # counter-clockwise, as numpy turns
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns)) if quarter_turns else pixels


def pixel_aspect(stream: av.VideoStream) -> Fraction:
    """Return the width of a stream's pixels by their height; square where nothing is said."""
    aspect = stream.sample_aspect_ratio or SQUARE
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
