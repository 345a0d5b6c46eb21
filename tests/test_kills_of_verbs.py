"""Verbs that are killed and run again leave the same files: a short campaign."""

from pathlib import Path

import pytest

from kills_of_verbs import contents, finished, killed, verbs

NAMES = ("predict", "evaluate", "evaluate prediction", "tables", "train", "batch")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("data")
    words = verbs(folder)
    finished(words["predict"], folder / "first")  # the first run waits for imports
    return words


@pytest.mark.slow
@pytest.mark.parametrize("verb", NAMES)
def test_a_run_that_was_killed_is_completed(
    made: dict[str, list[str]], tmp_path: Path, verb: str
) -> None:
    words = made[verb]
    seconds = finished(words, tmp_path / "whole")
    assert killed(words, tmp_path / "parts", 0.2 * seconds)
    killed(words, tmp_path / "parts", 0.6 * seconds)
    finished(words, tmp_path / "parts")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert not list(tmp_path.rglob(".stremn-*"))
