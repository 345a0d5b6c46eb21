"""A stream that breaks off is opened again."""

import logging
from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest

from stremn.errors import StremnError
from stremn.media import decoding, reconnecting
from stremn.media.containers import opened_stream
from stremn.media.encoding import write_video
from stremn.media.frames import Frame, Shot
from stremn.media.video import open_frames


def shots(count: int, error: str | None = None) -> Iterator[Shot]:
    for index in range(count):
        yield Shot(np.full((4, 4, 3), index, np.uint8), 0.0)
    if error is not None:
        raise StremnError(error)


def test_a_stream_goes_on_after_a_break(caplog: pytest.LogCaptureFixture) -> None:
    waited: list[float] = []
    later: list[Any] = [StremnError("No route."), shots(2, "Cut.")]

    def reopen() -> Iterator[Shot]:
        found = later.pop(0) if later else StremnError("Gone.")
        if isinstance(found, StremnError):
            raise found
        return found

    stream = reconnecting.reconnecting(shots(3), reopen, "The gate", waited.append)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(StremnError, match=r"The gate broke off and could not .* 5 tries: Gone\."),
    ):
        list(stream)
    assert waited == [1.0, 2.0, *reconnecting.WAITS]
    assert "The gate broke off (it ended). Trying again in 1 s." in caplog.text
    assert "The gate broke off (No route). Trying again in 2 s." in caplog.text
    assert "The gate broke off (Cut). Trying again in 1 s." in caplog.text


def test_times_begin_with_the_first_frame() -> None:
    def late() -> Iterator[Shot]:
        sleep(0.1)
        yield from shots(2)

    stream = reconnecting.reconnecting(late(), lambda: shots(0), "The gate")
    assert next(stream).time == 0


def test_frames_are_numbered_on_over_a_break(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera that can be reached twice; each time it sends four frames."""
    write_video(tmp_path / "clip.mp4", [np.full((48, 64, 3), 50, np.uint8)] * 4, 10)
    calls: list[str] = []

    def camera(address: str, label: str, *, live: bool) -> Any:
        calls.append(address)
        if len(calls) > 2:
            raise StremnError("The camera is off.")
        return opened_stream(str(tmp_path / "clip.mp4"), label, live=False)

    monkeypatch.setattr(decoding, "opened_stream", camera)
    monkeypatch.setattr(reconnecting, "WAITS", (0.0,))
    frames = open_frames("rtsp://gate/stream")
    seen: list[Frame] = []
    with pytest.raises(StremnError, match=r"could not be opened again in 1 tries: The camera is o"):
        seen.extend(frames)
    assert [frame.index for frame in seen] == list(range(8))
    times = [frame.time for frame in seen]
    assert times == sorted(times)
    assert calls == ["rtsp://gate/stream"] * 3
