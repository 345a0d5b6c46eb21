"""Clips of videos: which frames, which objects, which crop."""

import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_data import MovingDisks
from stremn.data.clips.clip import Clip
from stremn.data.clips.colors import ColorRange
from stremn.data.clips.video_clips import (
    GapSchedule,
    VideoClipParameters,
    VideoClips,
    draw_stretch,
    frame_times,
)
from stremn.data.readers.labelled_videos import VideoReader, check_videos, joined
from stremn.data.readers.layouts import read_davis
from stremn.errors import StremnError
from stremn.media.mask_codes import VOID

PLAIN = ColorRange(0, 0, 0, 0)
CALM = VideoClipParameters(color=PLAIN, pan=0, angle=0, zoom=0, stretch=0, follow=0)


def clips_of(source: VideoClips, count: int, frames: int = 4, progress: float = 0.0) -> list[Clip]:
    return [
        source.sample(np.random.default_rng((9, i)), frames, 80, progress) for i in range(count)
    ]


# --- which frames ---------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 60), st.integers(1, 12), st.integers(1, 25))
def test_times_keep_order_and_gaps(seed: int, length: int, frames: int, gap: int) -> None:
    times = frame_times(np.random.default_rng(seed), length, frames, gap)
    assert times.shape == (frames,)
    assert times.min() >= 0
    assert times.max() < length
    steps = np.diff(times)
    if length >= frames:
        assert ((steps >= 1) & (steps <= gap)).all()
    elif length > 1:
        assert (np.abs(steps) == 1).all()


def test_all_gaps_and_starts_are_drawn() -> None:
    rng = np.random.default_rng(0)
    times = np.array([frame_times(rng, 12, 3, 4) for _ in range(600)])
    assert set(np.diff(times, axis=1).ravel()) == {1, 2, 3, 4}
    assert set(times[:, 0]) >= set(range(9))
    assert times.max() == 11


def test_gaps_grow_with_progress() -> None:
    gaps = GapSchedule()
    assert [gaps(p) for p in (0.0, 0.19, 0.2, 0.5, 0.8, 1.0)] == [5, 5, 10, 15, 25, 25]
    falling = GapSchedule(((0.0, 10), (0.9, 5)))
    assert [falling(p) for p in (0.5, 0.95)] == [10, 5]
    with pytest.raises(StremnError, match="must start at 0 and rise"):
        GapSchedule(((0.1, 5),))
    with pytest.raises(StremnError, match="must start at 0 and rise"):
        GapSchedule(((0.0, 5), (0.5, 10), (0.2, 5)))
    with pytest.raises(StremnError, match="1 or more"):
        GapSchedule(((0.0, 0),))


def positions(clip: Clip) -> np.ndarray:
    """Column of the middle of object 1 in each frame, in crop sides."""
    return np.array([np.argwhere(ids == 1).mean(axis=0)[1] / ids.shape[1] for ids in clip.labels])


def test_the_curriculum_reaches_the_clips() -> None:
    reader = VideoReader([MovingDisks("d", 100, step=0.8)])
    source = VideoClips(reader, parameters=replace(CALM, crop=(1.0, 1.0)))
    travel = [
        np.mean([np.abs(np.diff(positions(clip))).mean() for clip in clips_of(source, 25, 3, p)])
        for p in (0.0, 0.99)
    ]
    # Mean gaps are 3 and 13 frames.
    assert travel[1] / travel[0] == pytest.approx(13 / 3, rel=0.35)


@pytest.mark.parametrize(("reverse", "backwards"), [(0.0, {False}), (0.5, {False, True})])
def test_videos_are_played_both_ways(reverse: float, backwards: set[bool]) -> None:
    reader = VideoReader([MovingDisks("d", 60)])
    found = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        _, times = draw_stretch(rng, reader, 5, 3, reverse) or pytest.fail("none")
        steps = np.diff(times)
        assert (steps < 0).all() or (steps > 0).all()
        found.add(bool(steps[0] < 0))
    assert found == backwards
    assert draw_stretch(np.random.default_rng(0), reader, 5, 3, 1.0, avoid={0}) is None


def test_half_of_the_clips_are_mirrored() -> None:
    source = VideoClips(VideoReader([MovingDisks("d", 60)]), parameters=replace(CALM, reverse=0.0))
    # The disk moves right; a mirrored clip shows it moving left.
    rightward = [positions(clip)[-1] > positions(clip)[0] for clip in clips_of(source, 40)]
    assert 0.25 < np.mean(rightward) < 0.75


# --- which objects --------------------------------------------------------------------------------


def test_clips_keep_their_promises() -> None:
    videos = [MovingDisks("a", 40, entries=(0, 0)), MovingDisks("b", 30, entries=(0, 12, 0))]
    source = VideoClips(VideoReader(videos), parameters=replace(VideoClipParameters(), objects=2))
    sizes = set()
    for clip in clips_of(source, 60, 5, 0.5):
        sizes.add(clip.given.size)
        assert clip.frames.shape == (5, 3, 80, 80)
        for number, frame in enumerate(clip.given, start=1):
            assert not (clip.labels[:frame] == number).any()
            assert np.mean(clip.labels[frame] == number) >= 0.003 - 1e-4
    assert sizes == {1, 2}


def test_the_same_generator_draws_the_same_clip() -> None:
    def make() -> VideoClips:
        return VideoClips(VideoReader([MovingDisks("a", 40, entries=(0, 0))], limit=100_000))

    for a, b in zip(clips_of(make(), 8), clips_of(make(), 8), strict=True):
        assert np.array_equal(a.frames, b.frames)
        assert np.array_equal(a.labels, b.labels)


def test_labels_lie_on_the_objects() -> None:
    source = VideoClips(VideoReader([MovingDisks("a", 40)]), parameters=VideoClipParameters(
        color=PLAIN
    ))  # fmt: skip
    for clip in clips_of(source, 25):
        red = clip.frames[:, 0] > 125
        assert (red & (clip.labels > 0)).sum() / (red | (clip.labels > 0)).sum() > 0.97


def test_objects_enter_later_if_allowed() -> None:
    reader = VideoReader([MovingDisks("a", 30, entries=(0, 10))])
    wide = replace(CALM, crop=(1.0, 1.0), reverse=0.0)
    gaps = GapSchedule(((0.0, 8),))
    late = VideoClips(reader, gaps, replace(wide, late=1.0))
    never = VideoClips(reader, gaps, replace(wide, late=0.0))
    assert any((clip.given > 0).any() for clip in clips_of(late, 30))
    assert not any((clip.given > 0).any() for clip in clips_of(never, 30))


def test_frames_without_label_map_are_void() -> None:
    video = MovingDisks("a", 20, labelled=tuple(range(0, 20, 2)))
    source = VideoClips(VideoReader([video]), parameters=CALM)
    void = 0
    for clip in clips_of(source, 20):
        assert (clip.labels[0] != VOID).all()
        for labels in clip.labels:
            assert (labels == VOID).all() or (labels != VOID).all()
            void += int((labels == VOID).all())
    assert void > 10


def test_stretches_that_start_without_object_are_drawn_again() -> None:
    source = VideoClips(VideoReader([MovingDisks("a", 30, entries=(20,))]), parameters=CALM)
    for clip in clips_of(source, 10, 3):
        assert (clip.labels[0] == 1).any()
    empty = VideoClips(VideoReader([MovingDisks("a", 10, entries=(50,))]))
    with pytest.raises(StremnError, match="No usable clip in 300 draws from 1 videos"):
        clips_of(empty, 1)


def test_the_crop_shows_the_object_and_follows_it() -> None:
    fast = MovingDisks("fast", 60, step=3.0, radius=15)
    gaps = GapSchedule(((0.0, 20),))
    source = VideoClips(VideoReader([fast]), gaps, replace(CALM, crop=(0.5, 0.6)))
    seen = [(clip.labels == 1).any(axis=(1, 2)) for clip in clips_of(source, 30)]
    # The object crosses more than the crop's width; unfollowed it would be lost in most frames.
    assert np.mean(seen) > 0.7
    starts = [np.count_nonzero(clip.labels[0] == 1) for clip in clips_of(source, 30)]
    # At least half of a disk of radius 15 in a crop of at most 96 pixels, drawn at 80.
    assert min(starts) > 0.5 * np.pi * (15 * 80 / 96) ** 2 * 0.9


# --- reading --------------------------------------------------------------------------------------


class Counted(MovingDisks):
    """Says which frames were decoded."""

    decoded: ClassVar[list[int]] = []

    def frame(self, index: int) -> np.ndarray:
        self.decoded.append(index)
        return super().frame(index)


def test_the_reader_decodes_again_what_its_limit_pushed_out() -> None:
    video = Counted("a", 10)
    frame = 160 * 240 * 4  # bytes of a frame and its label map
    Counted.decoded.clear()
    reader = VideoReader([video], limit=2 * frame)
    for index in (0, 1, 0, 2, 0, 1):
        picture, ids = reader.read(0, index)
    assert Counted.decoded == [0, 1, 2, 1]
    assert np.array_equal(picture, MovingDisks("a", 10).frame(1))
    assert ids is not None


def test_readers_joined_have_room_for_what_each_may_keep() -> None:
    one, two = VideoReader([MovingDisks("a", 3)], 1000), VideoReader([MovingDisks("b", 4)], 500)
    both = joined([one, two])
    assert [video.name for video in both.videos] == ["a", "b"]
    assert both.limit == 1500
    assert joined([one]) is one


def test_large_frames_are_reduced() -> None:
    frame, ids = VideoReader([MovingDisks("a", 2)], short_side=80).read(0, 0)
    assert frame.shape == (80, 120, 3)
    assert ids is not None
    assert ids.mean() == pytest.approx(
        VideoReader([MovingDisks("a", 2)]).read(0, 0)[1].mean(), rel=0.05
    )  # type: ignore[union-attr]


class Odd:
    """A video whose label maps are wrong."""

    name = "odd"

    def __init__(self, ids: np.ndarray) -> None:
        self._ids = ids

    def __len__(self) -> int:
        return 2

    def frame(self, index: int) -> np.ndarray:
        return np.zeros((20, 30, 3), dtype=np.uint8)

    def label(self, index: int) -> np.ndarray:
        return self._ids


def test_unusable_videos_are_listed_together() -> None:
    large = Odd(np.full((20, 30), 300, dtype=np.uint16))
    unequal = Odd(np.ones((10, 30), dtype=np.uint8))
    found = check_videos(
        [MovingDisks("good", 3), large, unequal, MovingDisks("none", 3, entries=())]
    )
    reasons = " / ".join(problem.reason for problem in found)
    assert {problem.where for problem in found} == {"odd", "none"}
    assert "holds id 300" in reasons
    assert "30x20 pixels, its label map 30x10" in reasons
    assert "No frame has a label map with an object" in reasons
    with pytest.raises(StremnError, match="holds id 300; training clips take ids up to 254"):
        VideoReader([large]).read(0, 0)
    with pytest.raises(StremnError, match="they must be equal"):
        VideoReader([unequal]).read(0, 0)
    with pytest.raises(StremnError, match="at least one video"):
        VideoReader([])


def test_a_clip_takes_little_time() -> None:
    source = VideoClips(VideoReader([MovingDisks("a", 40)], limit=10**9))
    clips_of(source, 10)
    start = time.process_time()
    for i in range(30):
        source.sample(np.random.default_rng(i), 4, 256, 0.0)
    # 11 ms on one core when measured; the bound only catches a change for the worse.
    assert (time.process_time() - start) / 30 < 0.08


def test_real_videos_become_clips(real_data: Path) -> None:
    davis = read_davis(real_data / "davis", "train", 2016)
    source = VideoClips(VideoReader(list(davis)))
    for clip in clips_of(source, 15, 5, 1.0):
        assert clip.frames.std() > 5
        assert (clip.labels[0] == list(clip.given).index(0) + 1).any()  # what is to be followed
