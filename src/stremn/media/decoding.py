"""Video files and streams, decoded through PyAV; a damaged one ends after its good frames."""

import logging
from collections.abc import Iterator
from contextlib import closing
from itertools import takewhile
from pathlib import Path

import av
from av.stream import Stream

from stremn.errors import StremnError
from stremn.media.containers import opened_stream, pixel_aspect, reason_of, stopped, to_rgb
from stremn.media.frames import FrameSource, Shot
from stremn.media.pictures import check_pixels
from stremn.media.reconnecting import reconnecting
from stremn.media.stored_video import StoredVideo

logger = logging.getLogger(__name__)

# Containers whose header states how long the video is; elsewhere the length is a guess.
_LENGTH_IS_DECLARED = frozenset({"mp4", "matroska", "webm", "avi"})
_LENGTH_TOLERANCE_SECONDS = 0.5


def open_video(address: str, label: str, start: int, *, live: bool) -> FrameSource:
    """Open a video file, or a live stream, from its frame `start` on.

    Args:
        address: path or URL.
        label: what is read, for messages.
        start: frames to leave out at the front.
        live: a stream: damaged parts are skipped, and waiting ends after 30 seconds; RTSP streams
            that break off are opened again.

    Raises:
        StremnError: it cannot be opened, or holds no frame.
    """
    container, stream = opened_stream(address, label, live=live)
    rate = stream.average_rate or stream.guessed_rate
    shots = _decode(container, stream, label, start, live=live)
    if address.lower().startswith(("rtsp://", "rtsps://")):

        def reopen() -> Iterator[Shot]:
            return _decode(*opened_stream(address, label, live=live), label, 0, live=live)

        shots = reconnecting(shots, reopen, label)
    source = FrameSource(
        shots,
        label=label,
        fps=float(rate) if rate else None,
        count=stream.frames or None,
        start=start,
        live=live,
        recording=None if live else StoredVideo(Path(address), label),
        sound=None if live else Path(address),
    )
    source.pixel_aspect = pixel_aspect(stream, source.size)
    return source


def _decode(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    label: str,
    start: int,
    *,
    live: bool,
) -> Iterator[Shot]:
    """Decode in presentation order; stop at damage in a file, skip it in a live stream."""
    decoded = 0
    end = 0.0
    left_out = None
    clock = Clock()
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
                    time = clock.seconds(frame)
                    if decoded > start:
                        yield Shot(to_rgb(frame), time)
                if damage and decoded and not live:
                    raise stopped(label, decoded, damage)
                if damage:
                    left_out = damage
                    logger.warning("%s: a damaged part was left out (%s)", label, damage)
        except (av.FFmpegError, OSError) as error:
            if live and decoded:
                raise StremnError(
                    f"{label} broke off after {decoded} frames: {reason_of(error)}. Check the "
                    "connection, and start again."
                ) from error
            raise stopped(label, decoded, reason_of(error)) from error
        if decoded == 0 and left_out:
            raise stopped(label, 0, left_out)
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
        return _until_corrupt(before), reason_of(error)
    sound = _until_corrupt(frames)
    return sound, None if len(sound) == len(frames) else "the picture is damaged"


def _until_corrupt(frames: list[av.VideoFrame]) -> list[av.VideoFrame]:
    """Return the frames before the first corrupt one."""
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


class Clock:
    """Seconds from the first frame of a video to each of the next."""

    def __init__(self) -> None:
        self._first: int | None = None

    def seconds(self, frame: av.VideoFrame) -> float | None:
        """Return the time of a frame; None if the file says nothing."""
        if frame.pts is None or frame.time_base is None:
            return None
        if self._first is None:
            self._first = frame.pts
        return float((frame.pts - self._first) * frame.time_base)


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
        # Matroska declares the time of the end, the others the length.
        start = 0 if "matroska" in kinds else container.start_time or 0
        declared = (start + (container.duration or 0)) / av.time_base
    if decoded and end < declared - _LENGTH_TOLERANCE_SECONDS:
        raise stopped(label, decoded, f"the file is cut off at {end:.1f} s of {declared:.1f} s")
