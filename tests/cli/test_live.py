"""`segment --live`: what is shown, dropped and written."""

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from moving_disc import FRAMES, disc, picture, write_clip
from stremn.cli import live_window
from stremn.cli.app import app
from stremn.errors import StremnError
from stremn.media.masks import write_mask
from stremn.media.video import open_frames
from stremn.segmentation.sessions import SegmentationSession


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Fourteen frames, 25 a second."""
    return write_clip(tmp_path / "clip.mp4")


@pytest.fixture(autouse=True)
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)


def run(clip: Path | int, out: Path, *arguments: object) -> str:
    mask = out.parent / "mask.png"
    write_mask(mask, disc(0).astype(np.uint8))
    words = ["segment", clip, "--mask", mask, "-o", out, "--device", "cpu", "--size", 96]
    result = CliRunner().invoke(app, [*map(str, words), *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def with_every_step(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Call `act` with the number of each frame before it is segmented."""
    step = SegmentationSession.step

    def stepping(self, *arguments):
        act(self.frame + 1)
        return step(self, *arguments)

    monkeypatch.setattr(SegmentationSession, "step", stepping)


def rows(out: Path) -> list[dict]:
    return json.loads((out / "memory.json").read_text())


def test_a_slow_model_drops_frames_and_the_run_ends_like_any_other(clip, tmp_path, monkeypatch):
    with_every_step(monkeypatch, lambda index: time.sleep(0.2))  # five frames' time
    out = tmp_path / "out"
    text = run(clip, out, "--live", "--port", 0)
    taken = len(rows(out))
    assert 2 <= taken < FRAMES
    assert f", {FRAMES - taken} dropped; memory" in text
    assert [row["frame"] for row in rows(out)] == list(range(taken))
    assert len(list((out / "masks").iterdir())) == taken
    times = [row["time"] for row in rows(out)]
    assert times[0] == 0
    assert all(later - before > 0.03 for before, later in pairwise(times))
    with open_frames(out / "overlay.mp4") as overlay:
        shown = [frame.time for frame in overlay]
    assert shown == pytest.approx(times, abs=1e-3), "the overlay runs as fast as the source"
    with pytest.raises(StremnError, match=f"holds {taken} frames of an earlier run"):
        run(clip, out, "--live", "--port", 0)
    assert "dropped" in run(clip, out, "--live", "--port", 0, "--overwrite")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_what_is_found_can_be_looked_at_while_it_runs(clip, tmp_path, monkeypatch):
    seen: list[np.ndarray] = []
    words: list[str] = []
    port = free_port()

    def asked(path: str) -> bytes:
        connection = HTTPConnection(f"127.0.0.1:{port}", timeout=20)
        connection.request("GET", path)
        content = connection.getresponse().read()
        connection.close()
        return content

    def look(index: int) -> None:
        if index == 1:
            jpeg = np.frombuffer(asked("/frame.jpg"), np.uint8)
            seen.append(cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))
            words.append(asked("/words").decode())

    with_every_step(monkeypatch, look)
    text = run(clip, tmp_path / "out", "--live", "--port", port, "--opacity", 1)
    assert f"Open http://127.0.0.1:{port}/ in a browser" in text
    assert seen[0].shape == picture(0).shape
    red, _, blue = seen[0][40, 50].astype(int)
    assert blue > red, "the orange disc is filled with its object's color"
    assert re.fullmatch(r"1 frame, .* frames/s, \d+ dropped, memory .* MB", words[0])


def test_ctrl_c_ends_a_run_well(clip, tmp_path, monkeypatch):
    def interrupt(index: int) -> None:
        if index == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with_every_step(monkeypatch, interrupt)
    out = tmp_path / "out"
    text = run(clip, out, "--live", "--port", 0, "--format", "coco")
    assert "Ending after this frame." in text
    assert len(rows(out)) == 2
    assert len(json.loads((out / "objects.json").read_text())["images"]) == 2
    assert json.loads((out / ".resume" / "progress.json").read_text())["finished"] is True
    with open_frames(out / "overlay.mp4") as overlay:
        assert len(list(overlay)) == 2


def test_a_second_ctrl_c_does_not_wait(clip, tmp_path, monkeypatch):
    def interrupt(index: int) -> None:
        if index == 1:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with_every_step(monkeypatch, interrupt)
    with pytest.raises(AssertionError):  # exit code 130
        run(clip, tmp_path / "out", "--live", "--port", 0)
    assert len(rows(tmp_path / "out")) == 1


def test_a_camera_that_stops_leaves_whole_files(clip, tmp_path, monkeypatch):
    play = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: play(str(clip)))
    with pytest.raises(StremnError, match="Camera 0 stopped giving frames after 14 frames"):
        run(0, tmp_path / "out", "--live", "--port", 0)
    with open_frames(tmp_path / "out" / "overlay.mp4") as overlay:
        assert len(list(overlay)) == len(rows(tmp_path / "out"))


def test_a_limit_ends_a_run_well(clip, tmp_path):
    text = run(clip, tmp_path / "out", "--live", "--port", 0, "--limit", 2)
    assert "2 frames at" in text
    assert len(rows(tmp_path / "out")) == 2


class Window:
    """A window whose user closes it at the second picture."""

    def __init__(self) -> None:
        self.shown: list[np.ndarray] = []

    @property
    def closed(self) -> bool:
        return len(self.shown) == 2

    def show(self, draw: Callable[[], np.ndarray], words: str) -> None:
        self.shown.append(draw())

    def __enter__(self) -> "Window":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_where_there_is_a_display_a_window_is_opened(clip, tmp_path, monkeypatch):
    window = Window()
    monkeypatch.setattr(live_window, "LiveWindow", lambda: window)
    text = run(clip, tmp_path / "out", "--live")
    assert "http" not in text
    assert len(rows(tmp_path / "out")) == 2
    assert window.shown[1].shape == picture(0).shape


def test_without_a_display_there_is_no_window():
    with pytest.raises(live_window.NoWindowError):
        live_window.LiveWindow()


def test_without_tkinter_there_is_no_window(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(live_window.NoWindowError) as error:
        live_window.LiveWindow()
    assert isinstance(error.value.__cause__, ImportError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--live", "--start", 2), "--live and --start do not go together"),
        (("--live", "--both-ways"), "--live and --both-ways do not go together"),
        (("--live", "--adapt", 3), "--live and --adapt do not go together"),
        (("--live", "--resume"), "--live and --resume do not go together"),
        (("--live", "--fps", 5), "--live and --fps do not go together"),
        (("--port", 7000), "--port is for the page of --live"),
        (("--live", "--port", 70_000), "--port must be from 0 to 65535"),
        (("--live", "--object", "id=2 on=10,10 at=5"), "first frame only, got some for frame 5"),
    ],
)
def test_what_a_live_run_cannot_do_is_refused(clip, tmp_path, options, message):
    with pytest.raises(StremnError, match=message):
        run(clip, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()
