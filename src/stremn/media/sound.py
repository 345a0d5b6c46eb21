"""The sound of a video, cut to a part of it: copied where MP4 can hold it, else encoded as AAC."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from stremn.errors import StremnError
from stremn.media.containers import opened_stream, reason_of

logger = logging.getLogger(__name__)

COPIED = frozenset({"aac", "ac3", "eac3", "alac"})
"""Codecs that players expect in MP4."""

Timed = tuple[float, "av.Packet[Any]"]
"""Seconds from the beginning, and what is heard or seen then."""


@dataclass(frozen=True)
class Sound:
    """The sound of a video file from one time to another, in seconds from its first frame."""

    path: Path
    start: float
    end: float


@contextmanager
def sound_packets(
    sound: Sound | None, joined: av.container.OutputContainer
) -> Iterator[Iterator[Timed]]:
    """Add a stream for a sound to a file, and give its packets; none if there is no sound.

    Sound that cannot be read is left out, with a warning: the pictures are worth more.
    """
    opened = None
    if sound is not None:
        try:
            opened = opened_stream(str(sound.path), str(sound.path), live=False)
        except StremnError as error:
            logger.warning("The sound could not be kept: %s", error)
    if sound is None or opened is None:
        yield iter(())
        return
    container, video = opened
    try:
        if not container.streams.audio:
            yield iter(())
            return
        audio = container.streams.audio[0]
        if getattr(audio, "codec_context", None) is None:
            logger.warning("The sound of %s is left out: its codec is not known here.", sound.path)
            yield iter(())
            return
        zero = float((video.start_time or 0) * (video.time_base or 0)) + sound.start
        length = sound.end - sound.start
        if sound.start > 0:
            container.seek(max(0, round(zero * av.time_base)))
        make = _copied if audio.codec_context.name in COPIED else _encoded
        yield _until_damage(make(container, audio, joined, zero, length), sound.path)
    finally:
        container.close()


def _until_damage(packets: Iterator[Timed], path: Path) -> Generator[Timed]:
    try:
        yield from packets
    except av.FFmpegError as error:
        logger.warning("The sound of %s is damaged and ends early: %s.", path, reason_of(error))


def _copied(
    container: av.container.InputContainer,
    audio: av.AudioStream,
    joined: av.container.OutputContainer,
    zero: float,
    length: float,
) -> Iterator[Timed]:
    stream = joined.add_stream_from_template(audio)

    def packets() -> Iterator[Timed]:
        latest: int | None = None
        for packet in container.demux(audio):
            if packet.pts is None or packet.dts is None or packet.time_base is None:
                continue
            time = float(packet.pts * packet.time_base) - zero
            if time >= length:
                break
            if time < 0:
                continue
            shift = round(zero / packet.time_base)
            packet.pts -= shift
            packet.dts -= shift
            if latest is not None and packet.dts <= latest:
                continue  # recordings that were joined begin again
            latest = packet.dts
            packet.stream = stream
            yield time, packet

    return packets()


def _encoded(
    container: av.container.InputContainer,
    audio: av.AudioStream,
    joined: av.container.OutputContainer,
    zero: float,
    length: float,
) -> Iterator[Timed]:
    rate = audio.rate if audio.rate in (44_100, 48_000) else 48_000
    stream = joined.add_stream("aac", rate=rate)
    stream.layout = "mono" if audio.layout.nb_channels == 1 else "stereo"
    resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)

    def within(frame: av.AudioFrame | None) -> Iterator[av.AudioFrame]:
        """Yield the samples between 0 and `length`."""
        for part in resampler.resample(frame):
            start, samples = part.pts or 0, part.to_ndarray()
            first, last = max(0, -start), min(part.samples, round(length * rate) - start)
            if first < last:
                cut = np.ascontiguousarray(samples[:, first:last], np.float32)
                kept = av.AudioFrame.from_ndarray(cut, format="fltp", layout=stream.layout.name)
                kept.sample_rate, kept.time_base = rate, Fraction(1, rate)
                kept.pts = start + first
                yield kept

    def timed(packets: list[av.Packet[av.AudioStream]]) -> Iterator[Timed]:
        for packet in packets:
            yield float((packet.pts or 0) * (packet.time_base or 0)), packet

    def packets() -> Iterator[Timed]:
        for frame in container.decode(audio):
            if frame.time is None:
                continue
            time = frame.time - zero
            if time >= length:
                break
            frame.time_base = Fraction(1, frame.sample_rate)
            frame.pts = round(time * frame.sample_rate)
            for part in within(frame):
                yield from timed(stream.encode(part))
        for part in within(None):
            yield from timed(stream.encode(part))
        yield from timed(stream.encode(None))

    return packets()
