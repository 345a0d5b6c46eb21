"""Moments as people write them, ranges of frames, and videos read backward."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from stremn.errors import StremnError
from stremn.media import stored_video
from stremn.media.given import masks_for
from stremn.media.masks import write_mask
from stremn.media.ranges import Moment, frames_within, parse_moment
from stremn.media.video import open_frames

COUNT = 70
UNEVEN = np.cumsum(np.random.default_rng(0).integers(1, 4, COUNT)).tolist()
"""Times of frames in 1/25 s."""


def clip(path: Path, codec: str, options: dict[str, str], ticks: list[int] | None = None) -> Path:
    """Write frames that grow brighter, 25 a second if there are no `ticks`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(COUNT):
            image = np.full((48, 64, 3), 20 + 3 * index, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = index if ticks is None else ticks[index]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


KINDS = {
    "b-frames.mp4": ("libx264", {"g": "40", "bf": "3"}),
    "open-groups.mkv": ("libx264", {"g": "40", "bf": "3", "x264-params": "open-gop=1"}),
    "transport.ts": ("libx264", {"g": "40"}),
    "hidden-frames.webm": ("libvpx", {"g": "40", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    "old.avi": ("mpeg4", {"g": "12"}),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_video_backward_has_the_same_frames(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_video, "HELD_BYTES", 7 * 48 * 64 * 3)
    source = open_frames(clip(tmp_path / name, *KINDS[name]))
    forward = list(source)
    assert source.recording is not None
    assert source.recording.count() == COUNT
    backward = list(source.backward(5, 64))
    assert [frame.index for frame in backward] == list(range(64, 4, -1))
    for frame in backward:
        np.testing.assert_array_equal(frame.image, forward[frame.index].image)
        assert frame.time == forward[frame.index].time


def test_a_video_without_times_is_not_read_backward(tmp_path: Path) -> None:
    source = open_frames(clip(tmp_path / "raw.h264", "libx264", {}))
    with pytest.raises(StremnError, match="cannot be read backward: its frames have no times"):
        list(source.backward(0, 9))
    with pytest.raises(StremnError, match="Record it first, and give the file"):
        list(open_frames(iter([np.zeros((48, 64, 3), np.uint8)])).backward(0, 0))


@pytest.mark.parametrize(
    ("text", "seconds", "frames"),
    [
        ("300", None, 300),
        ("12.5s", 12.5, 0),
        ("0s", 0.0, 0),
        ("1:02.5", 62.5, 0),
        ("01:02:03", 3723.0, 0),
        ("00:00:01:12", 1.0, 12),
    ],
)
def test_moments(text: str, seconds: float | None, frames: int) -> None:
    assert parse_moment(text) == Moment(text, seconds, frames)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "x", "1:75", "1:02.5:3", "3 s", "1:2:3:4:5"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(StremnError, match=r"--start cannot be understood: .* seconds \(12.5s\)"):
        parse_moment(text, "--start")


def test_times_are_looked_up_where_frames_are_uneven(tmp_path: Path) -> None:
    source = open_frames(clip(tmp_path / "uneven.mkv", "libx264", {"g": "30"}, UNEVEN))
    times = [(tick - UNEVEN[0]) / 25 for tick in UNEVEN]
    assert [frame.time for frame in source] == pytest.approx(times)
    for text in ("0s", "1.0s", "2.5s", "00:04.2"):
        seconds = float(text.rstrip("s").rpartition(":")[2])
        expected = next(i for i, time in enumerate(times) if time >= seconds - 1e-6)
        assert frames_within(source, text, None).start == expected
    frames = list(open_frames(tmp_path / "uneven.mkv", start="1.0s", end="00:00:02:03"))
    first = next(i for i, time in enumerate(times) if time >= 1)
    last = next(i for i, time in enumerate(times) if time >= 2) + 3
    assert [frame.index for frame in frames] == list(range(first, last))


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("70", None, "--start 70 is after the end of .*: its 70 frames are 0 to 69, 2.80 seconds"),
        ("3s", None, "--start 3s is after the end"),
        (None, "71", "--end 71 is after the end"),
        (None, "2.9s", "--end 2.9s is after the end"),
        ("20", "20", "--end 20 is frame 20, and --start is frame 20: no frame is between them"),
        ("1s", "0.5s", "--end 0.5s is frame 13, and --start is frame 25"),
    ],
)
def test_a_range_outside_the_video_is_refused(
    tmp_path: Path, start: str | None, end: str | None, message: str
) -> None:
    source = open_frames(clip(tmp_path / "clip.mp4", "libx264", {}))
    with pytest.raises(StremnError, match=message):
        frames_within(source, start, end)


def test_the_end_itself_may_be_said(tmp_path: Path) -> None:
    source = open_frames(clip(tmp_path / "clip.mp4", "libx264", {}))
    assert frames_within(source, "69", "70") == (69, 70)
    assert frames_within(source, None, "2.8s") == (0, 70)


def test_pictures_have_numbers_and_no_times() -> None:
    stack = np.zeros((5, 8, 8, 3), np.uint8)
    with pytest.raises(StremnError, match="has no frame rate, so 1 seconds are at no frame"):
        open_frames(stack, start="1s")
    assert [frame.index for frame in open_frames(stack, start="2", end="4")] == [2, 3]
    assert [frame.index for frame in open_frames(list(stack)).backward(1, 3)] == [3, 2, 1]


# ---------------------------------------------------------------- masks of any frame


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Frames 0 to 9 of 20x30, and a mask called m.png."""
    (tmp_path / "frames").mkdir()
    for index in range(10):
        image = Image.fromarray(np.full((20, 30, 3), 9 * index, np.uint8))
        image.save(tmp_path / "frames" / f"{index:05d}.png")
    write_mask(tmp_path / "m.png", square(3))
    return tmp_path


def square(item: int) -> np.ndarray:
    labels = np.zeros((20, 30), np.uint8)
    labels[5:15, 5:15] = item
    return labels


def test_a_mask_of_a_later_frame(folder: Path) -> None:
    frames = open_frames(folder / "frames")
    mask_of = masks_for(frames, folder / "m.png", at=4)
    assert mask_of.frames == (4,)
    found = [mask_of(frame) for frame in frames]
    assert [None if mask is None else mask.ids for mask in found] == [None] * 4 + [(3,)] + [
        None
    ] * 5


def test_masks_and_objects_begin_where_reading_begins(folder: Path) -> None:
    frames = open_frames(folder / "frames", start=3)
    mask_of = masks_for(frames, folder / "m.png", objects=["id=7 on=9,9 at=6"])
    assert mask_of.frames == (3, 6)


def test_a_later_mask_without_an_object_is_refused_before_the_run(folder: Path) -> None:
    (folder / "masks").mkdir()
    write_mask(folder / "masks" / "00001.png", square(1))
    write_mask(folder / "masks" / "00004.png", square(0))
    with pytest.raises(StremnError, match=r"00004.png cannot be used: it holds no object"):
        masks_for(open_frames(folder / "frames"), folder / "masks")


def test_masks_of_frames_that_are_not_read_are_left_out(folder: Path) -> None:
    (folder / "masks").mkdir()
    for index in (1, 4, 8):
        write_mask(folder / "masks" / f"{index:05d}.png", square(index))
    frames = open_frames(folder / "frames", start=2, end=8)
    assert masks_for(frames, folder / "masks").frames == (4,)
    frames = open_frames(folder / "frames", start=5, end=7)
    message = r"given in frames 1, 4, 8, but only frames 5 to 6 are read"
    with pytest.raises(StremnError, match=message):
        masks_for(frames, folder / "masks")
    with pytest.raises(StremnError, match="named by their frames, so --at 4 has no effect"):
        masks_for(open_frames(folder / "frames"), folder / "masks", at=4)


def test_a_mask_for_a_frame_that_is_not_there(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", "libx264", {})
    (tmp_path / "masks").mkdir()
    for index in (3, 70):
        write_mask(tmp_path / "masks" / f"{index:05d}.png", np.ones((48, 64), np.uint8))
    with pytest.raises(StremnError, match="holds a mask for frame 70, but the video has 70 frames"):
        masks_for(open_frames(path), tmp_path / "masks")
    with pytest.raises(StremnError, match="--at 3s is after the end"):
        masks_for(open_frames(path), tmp_path / "masks" / "00003.png", at="3s")
