"""Read times, count and frames backward from a video file.

Nothing here holds more than a few frames and, for every 32nd frame at most, two numbers.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av

from stremn.errors import StremnError
from stremn.media.containers import opened_stream, to_rgb
from stremn.media.frames import Shot
from stremn.media.ranges import frames_until

HELD_BYTES = 128 * 2**20
"""Of frames that are held while a video is read backward; at least `_LEAST_HELD` are."""

_LEAST_HELD = 4
_APART = 32  # frames between the key frames that are remembered, or more
_ROUNDING = 1e-6  # seconds
_VP8_SHOWN = 0x10  # a bit of a VP8 frame's first byte; frames without it only help others


class _KeyFrame(NamedTuple):
    """A frame from which decoding can start.

    pts: its time in ticks.
    place: index of the first frame that is shown from then on.
    shown: whether that is the key frame itself; cut videos may begin after theirs.
    """

    pts: int
    place: int
    shown: bool


class _Scan:
    """Facts from the packets of a video, without decoding.

    Attributes:
        count: frames.
        first: time of the first frame in ticks; None without frames, or if they have no times.
        last: time of the last.
        before: frames that are shown before the moment `until`, in seconds.
        keys: frames from which decoding can start, `_APART` or more apart.
    """

    def __init__(self, tick: Fraction, until: float, *, vp8: bool) -> None:
        self._tick = tick
        self._until = until
        self._vp8 = vp8
        self._key: _KeyFrame | None = None
        self.count = 0
        self.first: int | None = None
        self.last = 0
        self.before = 0
        self.keys: list[_KeyFrame] = []

    def seconds(self, pts: int) -> float:
        """Return the time of a frame, from the first on."""
        return float((pts - (self.first or 0)) * self._tick)

    def add(self, packet: av.Packet[av.VideoStream]) -> None:
        """Take the next packet; they come in the order in which they are decoded."""
        pts = packet.dts if packet.pts is None else packet.pts
        if packet.size == 0 or (self._vp8 and not bytes(packet)[0] & _VP8_SHOWN):
            return
        if packet.is_keyframe and pts is not None:
            self._end_key()
            self._key = _KeyFrame(pts, self.count, not packet.is_discard)
        if packet.is_discard:
            return
        self.count += 1
        if pts is None:
            return
        if self.first is None:
            self.first = self.last = pts
        self.last = max(self.last, pts)
        self.before += self.seconds(pts) < self._until - _ROUNDING
        if self._key is not None and pts < self._key.pts:  # decoded after it, shown before it
            self._key = self._key._replace(place=self._key.place + 1)

    def end(self) -> None:
        """Note that there are no more packets."""
        self._end_key()

    def _end_key(self) -> None:
        key, self._key = self._key, None
        if key and (not self.keys or key.place >= self.keys[-1].place + _APART):
            self.keys.append(key)


class StoredVideo:
    """A recording (see `Recording`) in a video file."""

    def __init__(self, path: Path, label: str) -> None:
        self._path = path
        self._label = label

    def count(self) -> int:
        """Return how many frames the file's packets hold; nothing is decoded."""
        return self._scan().count

    def frame_at(self, seconds: float) -> int:
        """Return the first frame that is shown at that time or later (see `Recording`)."""
        scan = self._scan(seconds)
        last = scan.seconds(scan.last)
        if scan.count < 2 or last <= 0 or seconds <= last + _ROUNDING:
            return scan.before
        return scan.count - 1 + frames_until(seconds - last, (scan.count - 1) / last)

    def backward(self, first: int, last: int) -> Iterator[Shot]:
        """Yield the frames from `last` down to `first`.

        The file is decoded in pieces from a key frame on, the last piece first, so a frame may be
        decoded several times; only as many are held as fit into `HELD_BYTES`.

        Raises:
            StremnError: its frames have no times, or it is damaged.
        """
        scan = self._scan()
        if scan.first is None or not scan.keys or scan.keys[0].place > 0:
            raise self._unreadable("its frames have no times or no key frame is first")
        held = _LEAST_HELD
        stop = last + 1
        while stop > first:
            start = max(first, stop - held)
            piece = self._piece(scan, start, stop)
            held = max(_LEAST_HELD, HELD_BYTES // piece[0].image.nbytes)
            stop = start
            while piece:
                yield piece.pop()

    def _piece(self, scan: _Scan, start: int, stop: int) -> list[Shot]:
        """Decode the frames from `start` up to `stop`.

        Some files are entered later than at the frame that was asked for. So if the key frame
        before is not met, the one before that is tried, and then the beginning.
        """
        place = bisect(scan.keys, start, key=lambda key: key.place) - 1
        key = scan.keys[place]
        for entry in (key.pts, scan.keys[max(0, place - 1)].pts, None):
            found: list[Shot] = []
            with closing(self._decoded(entry, key.pts)) as frames:
                for index, frame in enumerate(frames, key.place):
                    late = index == key.place and key.shown and frame.pts != key.pts
                    if index >= stop or late:
                        break
                    if index >= start:
                        found.append(Shot(to_rgb(frame), scan.seconds(frame.pts or 0)))
            if len(found) == stop - start:
                return found
        raise self._unreadable(f"frames {start} to {stop - 1} cannot all be found in it")

    def _decoded(self, entry: int | None, pts: int) -> Generator[av.VideoFrame]:
        """Decode from near the time `entry` on; frames shown before `pts` are left out.

        Both are in ticks; no entry is the file's beginning.
        """
        container, stream = opened_stream(str(self._path), self._label, live=False)
        with closing(container):
            try:
                if entry is not None:
                    container.seek(entry, stream=stream, backward=True)
                for frame in container.decode(stream):
                    if frame.pts is not None and frame.pts >= pts:
                        if frame.is_corrupt:
                            raise self._unreadable("a picture of it is damaged")
                        yield frame
            except (av.FFmpegError, OSError) as error:
                raise self._unreadable(str(error)) from error

    def _unreadable(self, reason: str) -> StremnError:
        return StremnError(
            f"{self._label} cannot be read backward: {reason}. Encode it again, for example as "
            "MP4, and give that."
        )

    def _scan(self, until: float = 0.0) -> _Scan:
        """Read all packets; `until` is in seconds."""
        container, stream = opened_stream(str(self._path), self._label, live=False)
        with closing(container):
            vp8 = stream.codec_context.name == "vp8"
            scan = _Scan(stream.time_base or Fraction(1), until, vp8=vp8)
            # What is before damage counts; reading on tells of the damage.
            with suppress(av.FFmpegError, OSError):
                for packet in container.demux(stream):
                    scan.add(packet)
            scan.end()
            return scan
