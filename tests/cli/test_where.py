"""`segment` on a part of a video, from masks of any frame."""

import json
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from stremn.cli.app import app
from stremn.errors import StremnError
from stremn.media.encoding import write_video
from stremn.media.masks import write_mask
from stremn.segmentation.sessions import SegmentationSession

FRAMES, HEIGHT, WIDTH = 8, 96, 128


def place(t: int) -> tuple[int, int]:
    """Centre of the disc, which moves right."""
    return 40 + 4 * t, 50


def picture(t: int) -> np.ndarray:
    image = np.linspace(30, 120, WIDTH, dtype=np.uint8)[None, :, None].repeat(HEIGHT, 0)
    image = np.ascontiguousarray(image.repeat(3, 2))
    cv2.circle(image, place(t), 18, (230, 60, 40), -1)
    image[4:24, 96:116] = 40, 220, 60
    return image


def truth(t: int, item: int = 1) -> np.ndarray:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(labels, place(t), 18, item, -1)
    return labels


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Eight frames, 10 a second."""
    write_video(tmp_path / "clip.mp4", [picture(t) for t in range(FRAMES)], 10)
    return tmp_path / "clip.mp4"


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """The disc in frame 4; its id is 7."""
    write_mask(tmp_path / "mask.png", truth(4, 7))
    return tmp_path / "mask.png"


def run(*arguments: object) -> str:
    words = ["segment", "--device", "cpu", "--size", "96", *map(str, arguments)]
    result = CliRunner().invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def labels_in(out: Path) -> dict[str, np.ndarray]:
    return {
        path.stem: np.asarray(Image.open(path)) for path in sorted((out / "masks").glob("*.png"))
    }


def overlap(labels: np.ndarray, t: int, item: int = 7) -> float:
    own, true = labels == item, truth(t) == 1
    return float((own & true).sum() / (own | true).sum())


def contents(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in ("lock", "progress.json")
    }


def test_a_part_of_a_video_keeps_the_videos_frame_numbers(clip, mask, tmp_path):
    out = tmp_path / "out"
    text = run(clip, "--mask", mask, "-o", out, "--start", "0.1s", "--at", "0.4s", "--end", 7)
    assert "first object is given in frame 4; frames 1 to 3 are left out" in text
    found = labels_in(out)
    assert list(found) == ["00004", "00005", "00006"]
    for name, labels in found.items():
        assert overlap(labels, int(name)) > 0.6
    rows = json.loads((out / "memory.json").read_text())
    assert [row["frame"] for row in rows] == [4, 5, 6]
    assert sorted(t for t in rows[-1]["objects"]["7"]["slots"] if t is not None) == [4, 6]


def test_the_mask_is_of_the_first_frame_that_is_followed(clip, mask, tmp_path):
    run(clip, "--mask", mask, "-o", tmp_path / "out", "--start", 4)
    assert list(labels_in(tmp_path / "out")) == ["00004", "00005", "00006", "00007"]


def test_a_part_can_be_resumed(clip, mask, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = ("--mask", mask, "--start", 4)
    run(clip, *options, "-o", whole)
    run(clip, *options, "-o", parts, "--limit", 2)
    with pytest.raises(StremnError, match="made with end None, now end is '7'"):
        run(clip, *options, "-o", parts, "--resume", "--end", 7)
    run(clip, *options, "-o", parts, "--resume")
    assert contents(parts) == contents(whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--start", 8), "--start 8 is after the end of .* its 8 frames are 0 to 7, 0.80 seconds"),
        (("--end", "1s"), "--end 1s is after the end"),
        (("--at", "5:00"), "--at 5:00 is after the end"),
        (("--start", "soon"), "--start cannot be understood: 'soon'"),
        (("--start", 5, "--at", 4), "given in frame 4, but only frames 5 and later are read"),
    ],
)
def test_what_is_not_in_the_video_is_refused_before_any_work(
    clip, mask, tmp_path, options, message
):
    with pytest.raises(StremnError, match=message):
        run(clip, "--mask", mask, "-o", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- both ways


def test_objects_are_followed_backward_and_forward(clip, mask, tmp_path):
    out = tmp_path / "out"
    run(clip, "--mask", mask, "--at", 4, "--both-ways", "-o", out)
    found = labels_in(out)
    assert list(found) == [f"{t:05d}" for t in range(FRAMES)]
    for name, labels in found.items():
        assert overlap(labels, int(name)) > 0.6, name
    rows = json.loads((out / "memory.json").read_text())
    assert [row["frame"] for row in rows] == list(range(FRAMES))
    assert sorted(t for t in rows[2]["objects"]["7"]["slots"] if t is not None) == [2, 4]
    assert sorted(t for t in rows[6]["objects"]["7"]["slots"] if t is not None) == [4, 6]
    assert not (out / ".resume" / "backward").exists()


@pytest.mark.parametrize("at", [0, 2])
def test_a_correction_alone_is_not_where_a_pass_backward_begins(clip, tmp_path, monkeypatch, at):
    write_mask(tmp_path / "first.png", truth(at, 7))
    steps = counted_steps(monkeypatch)
    options = ("--at", at, "--object", "id=7 off=100,10 at=6", "--both-ways")
    run(clip, "--mask", tmp_path / "first.png", *options, "-o", tmp_path / "out")
    found = labels_in(tmp_path / "out")
    assert all(overlap(labels, int(name)) > 0.6 for name, labels in found.items())
    backward = at + 1 if at else 0
    assert len(steps) == backward + FRAMES - at


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Object 7, the disc, in frames 2 and 6; object 9, the square, in frame 6 alone."""
    (tmp_path / "masks").mkdir()
    write_mask(tmp_path / "masks" / "00002.png", truth(2, 7))
    later = truth(6, 7)
    later[4:24, 96:116] = 9
    write_mask(tmp_path / "masks" / "00006.png", later)
    return tmp_path / "masks"


def test_given_frames_stay_as_they_were_given(clip, masks, tmp_path):
    options = ("--probabilities", "--size", 192)
    run(clip, "--mask", masks, "--both-ways", "-o", tmp_path / "out", *options)
    found = labels_in(tmp_path / "out")
    for t in (2, 6):
        assert overlap(found[f"{t:05d}"], t) > 0.95
    for name, labels in found.items():
        assert overlap(labels, int(name)) > 0.6, name
        assert (labels[4:24, 96:116] == 9).mean() > 0.5, name  # given last, followed to the first
    with np.load(tmp_path / "out" / "probabilities" / "00004.npz") as soft:
        assert soft["ids"].tolist() == [7, 9]
        assert soft["probabilities"].sum(0).max() <= 1 + 1e-3


def counted_steps(monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None) -> list[int]:
    """Count the steps of all sessions together; interrupt the run at step `stop_at`."""
    steps: list[int] = []
    step = SegmentationSession.step

    def counted(self, *arguments):
        steps.append(self.frame)
        if len(steps) == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *arguments)

    monkeypatch.setattr(SegmentationSession, "step", counted)
    return steps


@pytest.mark.parametrize("count", [3, 7, 9, 13])
def test_a_run_both_ways_is_resumed(clip, masks, tmp_path, monkeypatch, count):
    """It takes 13 steps: backward from frame 6 to 0, forward from 2 to 7."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = (clip, "--mask", masks, "--both-ways")
    run(*options, "-o", whole)
    with monkeypatch.context() as patch:
        assert len(counted_steps(patch, count)) == 0
        with pytest.raises(AssertionError):
            run(*options, "-o", parts)
    with monkeypatch.context() as patch:
        steps = counted_steps(patch)
        run(*options, "-o", parts, "--resume")
    assert len(steps) == 13 - count
    assert contents(parts) == contents(whole)


def test_both_ways_wants_a_video_that_is_all_there(clip, mask, tmp_path, monkeypatch):
    with pytest.raises(StremnError, match="--limit and --both-ways do not go together"):
        run(clip, "--mask", mask, "--both-ways", "--limit", 3, "-o", tmp_path / "out")
    play = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: play(str(clip)))
    with pytest.raises(StremnError, match="Camera 0 cannot be read backward, only as it comes"):
        run(0, "--mask", mask, "--at", 4, "--both-ways", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()
