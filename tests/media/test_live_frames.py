"""Frames that come faster than they are taken are dropped, and counted."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stremn.errors import StremnError
from stremn.media.encoding import write_video
from stremn.media.frames import FrameSource, Shot
from stremn.media.live import Newest, as_it_happens, played
from stremn.media.video import open_frames


def shot(index: int) -> Shot:
    return Shot(np.full((16, 16, 3), index, np.uint8), index / 10)


def number(found: Shot) -> int:
    return int(found.image[0, 0, 0])


class Source:
    """Six pictures: the first on demand, the others at once; it ends when it is allowed to."""

    def __init__(self, error: str | None = None) -> None:
        self.given = threading.Event()
        self.may_end = threading.Event()
        self.closed = threading.Event()
        self._error = error

    def shots(self) -> Iterator[Shot]:
        try:
            for index in range(6):
                yield shot(index)
            self.given.set()
            self.may_end.wait(20)
            if self._error is not None:
                raise StremnError(self._error)
        finally:
            self.closed.set()


def test_the_newest_picture_is_given_and_the_others_are_counted() -> None:
    source = Source()
    newest = Newest(source.shots())
    assert number(next(newest)) == 0
    second = number(next(newest))
    source.given.wait(20)
    if second < 5:
        assert number(next(newest)) == 5
        assert newest.dropped == 3
    else:
        assert newest.dropped == 4
    source.may_end.set()
    with pytest.raises(StopIteration):
        next(newest)
    newest.close()


def test_nothing_is_read_before_the_second_picture_is_asked_for() -> None:
    read: list[int] = []

    def shots() -> Iterator[Shot]:
        for index in range(3):
            read.append(index)
            yield shot(index)

    newest = Newest(shots())
    assert number(next(newest)) == 0
    assert read == [0]
    newest.close()
    with pytest.raises(StopIteration):
        next(newest)
    assert read == [0]


def test_an_error_comes_after_the_last_picture_before_it() -> None:
    source = Source("The cable is out.")
    newest = Newest(source.shots())
    seen = [number(next(newest)), number(next(newest))]
    source.may_end.set()
    source.closed.wait(20)
    if seen[-1] < 5:
        assert number(next(newest)) == 5
    with pytest.raises(StremnError, match="The cable is out"):
        next(newest)
    newest.close()


def test_an_iteration_that_waits_can_be_ended() -> None:
    source = Source()
    newest = Newest(source.shots())
    next(newest)
    while number(next(newest)) < 5:
        pass
    threading.Timer(0.05, newest.end).start()
    with pytest.raises(StopIteration):
        next(newest)
    source.may_end.set()
    newest.close()
    assert source.closed.wait(20), "the source is released"


class Watch:
    """A clock that stands still but for waiting and working."""

    def __init__(self) -> None:
        self.now = 50.0
        self.waited: list[float] = []

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.waited.append(round(seconds, 6))
        self.now += seconds


def test_a_recording_is_played_at_its_own_times() -> None:
    times = (0.0, 0.1, 0.5, 0.6)
    frames = FrameSource(
        (Shot(np.zeros((8, 8, 3), np.uint8), time) for time in times), label="A clip", fps=10
    )
    watch = Watch()
    seen = []
    for at, found in enumerate(played(frames, 10, watch.clock, watch.wait)):
        seen.append(found.time)
        if at in (0, 1):
            watch.now += 0.3  # before the clock starts, and for three frames' time
    assert seen == [0.0, 0.1, 0.5, 0.6]
    assert watch.waited == [0.1, 0.1, 0.1]  # 0.3 of the 0.4 seconds had passed in the second


def test_images_are_played_at_the_usual_rate(tmp_path: Path) -> None:
    frames = open_frames(np.zeros((3, 8, 8, 3), np.uint8))
    watch = Watch()
    shots = list(played(frames, 25, watch.clock, watch.wait))
    assert [found.time for found in shots] == [0, 0.04, 0.08]
    assert watch.waited == [0.04, 0.04]


def test_a_live_video_numbers_the_frames_that_are_taken(tmp_path: Path) -> None:
    write_video(
        tmp_path / "clip.mp4", [np.full((48, 64, 3), 9 * t, np.uint8) for t in range(9)], 30
    )
    frames, newest = as_it_happens(open_frames(tmp_path / "clip.mp4"))
    assert frames.live
    assert frames.fps == 30
    assert frames.peek().index == 0
    taken = []
    with frames:
        for frame in frames:
            taken.append(frame)
            if frame.index == 1:
                threading.Event().wait(0.2)  # six frames' time
    assert [frame.index for frame in taken] == list(range(len(taken)))
    assert len(taken) + newest.dropped == 9
    assert newest.dropped >= 4
    for frame in taken:
        assert frame.time is not None
        assert frame.image.mean() == pytest.approx(9 * 30 * frame.time, abs=4)
