"""Video files and streams, decoded through PyAV; a damaged one ends after its good frames."""

import logging
from collections.abc import Iterator
from contextlib import closing
from itertools import takewhile
from pathlib import Path

import av
import numpy as np
from av.stream import Stream

from stremn.errors import StremnError
from stremn.media.frames import FrameSource, Picture, frame_name
from stremn.media.pictures import check_pixels

logger = logging.getLogger(__name__)

# Containers whose header states how long the video is; elsewhere the length is a guess.
_LENGTH_IS_DECLARED = frozenset({"mp4", "matroska", "webm", "avi"})
_LENGTH_TOLERANCE_SECONDS = 0.5

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


def open_video(address: str, label: str, start: int, *, live: bool) -> FrameSource:
    """Open a video file, or a live stream, from its frame `start` on.

    Args:
        address: path or URL.
        label: what is read, in words for messages.
        start: frames to leave out at the front.
        live: a stream: damage is stepped over, and waiting ends after 30 seconds.

    Raises:
        StremnError: it cannot be opened, or holds no frame.
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
            f"{what} {label} cannot be opened as a video: {_reason(error)}. {advice}"
        ) from error
    if not container.streams.video:
        container.close()
        raise StremnError(f"{label} holds no video stream (only sound or data).")
    stream = container.streams.video[0]
    if getattr(stream, "codec_context", None) is None:
        container.close()
        raise _stopped(label, 0, "its header is damaged")
    _check_size(stream, container, label)
    stream.thread_type = "SLICE"  # frame threads would lose the frames before a damaged one
    rate = stream.average_rate or stream.guessed_rate
    return FrameSource(
        _decode(container, stream, label, start, live=live),
        label=label,
        fps=float(rate) if rate else None,
        count=stream.frames or None,
        start=start,
        live=live,
    )


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
    """Refuse pictures that are too large, before the decoder makes room for one."""
    try:
        if stream.width or stream.height:
            check_pixels(stream.width, stream.height)
    except OSError as error:
        container.close()
        raise _stopped(label, 0, str(error)) from error


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
                    check_pixels(frame.width, frame.height)
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
    """Return frames of one packet and what is wrong with it, if anything.

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
    """Return the frames before the first that the decoder had to make up in part."""
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
    # One thread: otherwise FFmpeg starts threads for every frame, which wait for the model's.
    pixels = frame.to_ndarray(format="rgb24", threads=1)
    quarter_turns = round(frame.rotation / 90) % 4  # counter-clockwise, as numpy turns
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns)) if quarter_turns else pixels


def _check_length(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    label: str,
    decoded: int,
    end: float,
) -> None:
    """Compare a file's length with its header: a truncated file gives no error of its own."""
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
        "before it are complete. To continue past it, repair the file (for example re-encode it)."
    )


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")
