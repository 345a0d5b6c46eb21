"""Find the frame of a run that each picture of its overlay shows."""

from __future__ import annotations

from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float, Int

from stremn.errors import StremnError
from stremn.media.containers import opened_stream, reason_of, stopped
from stremn.study.memory_log import MemoryLog


def overlay_frames(video: Path, log: MemoryLog) -> Int[np.ndarray, " n"]:
    """Return the index of the frame that each picture of an overlay shows, in order.

    An overlay begins with the run's first frame. If it has a picture for each frame, they come in
    the same order. `stremn segment --fps` leaves frames out, and shows each of the others at its
    own time, counted from the run's first frame: that time tells which one it is.

    Args:
        video: the overlay.
        log: of the same run.

    Raises:
        StremnError: it is no video, or frames are left out and the run has no times of its frames.
    """
    shown = _times_of_pictures(video)
    if len(shown) == len(log.frames):
        return log.frames
    if len(shown) > len(log.frames) or np.isnan(log.times).any():
        raise StremnError(
            f"{video} cannot be compared with memory.json: expected a picture for each of its "
            f"{len(log.frames)} frames, or fewer and the time of each frame, got {len(shown)} "
            "pictures. Finish the run with --resume, repeat it without --fps, or move the overlay "
            "to another folder to draw the rest."
        )
    return log.frames[_nearest(np.maximum.accumulate(log.times - log.times[0]), shown)]


def _times_of_pictures(video: Path) -> Float[np.ndarray, " n"]:
    """Return the seconds from the first picture to each; nothing is decoded."""
    container, stream = opened_stream(str(video), str(video), live=False)
    ticks = []
    with closing(container):
        try:
            for packet in container.demux(stream):
                if packet.size and packet.pts is not None:
                    ticks.append(packet.pts)
        except (av.FFmpegError, OSError) as error:
            raise stopped(str(video), len(ticks), reason_of(error)) from error
    if not ticks:
        raise stopped(str(video), 0, "it has no pictures with a time")
    return np.sort(np.array(ticks) - min(ticks)) * float(stream.time_base or Fraction(1))


def _nearest(
    times: Float[np.ndarray, " t"], wanted: Float[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Return the place of the time that is nearest to each wanted one; there are two or more."""
    after = np.clip(np.searchsorted(times, wanted), 1, len(times) - 1)
    before = after - 1
    return np.where(wanted - times[before] <= times[after] - wanted, before, after)
