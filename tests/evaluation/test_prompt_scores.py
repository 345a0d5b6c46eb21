"""`stremn evaluate prompts`: what is on the disk, and when, and what is said of it."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from stremn.cli.app import app
from stremn.errors import StremnError
from stremn.evaluation.prompting import evaluation
from stremn.evaluation.prompting.evaluation import RESULTS, UNFINISHED, Example, PromptScores, run
from stremn.media.files import read_rows
from stremn.media.finding import Click
from stremn.media.frames import Picture
from stremn.media.prompts import Box
from stremn.prompting.planes import Plane
from tiny_vos import davis


def examples(count: int) -> list[Example]:
    truth = np.zeros((32, 32), bool)
    truth[8:20, 8:20] = True
    return [Example(f"picture {i}", np.zeros((32, 32, 3), np.uint8), truth) for i in range(count)]


class Finder:
    """Finds all pixels; raises `error` at the call with that number."""

    def __init__(self, error: BaseException | None = None, at: int = 0) -> None:
        self.error, self.at, self.calls = error, at, 0

    def __call__(
        self, frame: Picture, *, box: Box | None = None, clicks: Sequence[Click] = ()
    ) -> Plane:
        self.calls += 1
        if self.error is not None and self.calls == self.at:
            raise self.error
        return np.ones(frame.shape[:2], bool)


CALLS = 4
"""Of the finder for each object: two boxes, two clicks."""


def scored(find: Finder, out: Path, count: int) -> list[PromptScores]:
    seen: list[PromptScores] = []
    run(find, examples(count), out, clicks=2, watch=seen.append)
    return seen


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broken")])
def test_a_run_that_stops_leaves_what_it_has_scored(
    error: BaseException, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(type(error)):
        scored(Finder(error, at=3 * CALLS + 1), tmp_path, 5)
    path = tmp_path / UNFINISHED
    assert [row["name"] for row in read_rows(path)] == ["picture 0", "picture 1", "picture 2"]
    assert f"Stopped before the end. Scored objects in {path}: 3." in caplog.text
    rows = read_rows(path)
    scored(Finder(), tmp_path, 5)
    assert not path.exists()
    assert json.loads((tmp_path / RESULTS).read_text())["objects"][:3] == rows


def test_a_run_that_stops_at_once_leaves_and_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeyboardInterrupt):
        scored(Finder(KeyboardInterrupt(), at=2), tmp_path / "out", 5)
    with pytest.raises(StremnError, match="no object to find"):
        scored(Finder(), tmp_path / "out", 0)
    assert not (tmp_path / "out").exists()
    assert not caplog.text


def test_a_summary_that_fails_costs_no_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(evaluation, "summary", too_large)
    with pytest.raises(MemoryError):
        scored(Finder(), tmp_path, 3)
    assert len(read_rows(tmp_path / UNFINISHED)) == 3


def on_davis(tmp_path: Path, objects: list[int]) -> Result:
    root = davis(tmp_path / "data", {"dogs": objects})
    words = ["evaluate", "prompts", "--root", str(root), "--year", "2017", "--clicks", "1",
             "--prompt-model", "grabcut", "-o", str(tmp_path / "out")]  # fmt: skip
    return CliRunner().invoke(app, words)


@pytest.mark.parametrize("count", [2, 3])
def test_intervals_are_told_of_three_objects_or_more(tmp_path: Path, count: int) -> None:
    ended = on_davis(tmp_path, list(range(1, count + 1)))
    assert ended.exit_code == 0, ended.output
    few = count < 3
    assert ("[" not in ended.stdout) == few
    assert ("Too few objects for 95 % intervals" in ended.stderr) == few
    saved = json.loads((tmp_path / "out" / RESULTS).read_text())["summary"]["box"]
    assert (saved[1:] == [None, None]) == few


def test_an_interrupted_command_says_where_the_scores_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    find = Finder(KeyboardInterrupt(), at=CALLS)  # one click here: in the second object
    monkeypatch.setattr("stremn.prompting.masks.mask_finder", lambda *_, **__: find)
    ended = on_davis(tmp_path, [1, 2, 3])
    assert ended.exit_code == 130
    assert len(read_rows(tmp_path / "out" / UNFINISHED)) == 1
    assert str(tmp_path / "out" / UNFINISHED) in caplog.text
