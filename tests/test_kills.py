"""A run that is killed or stopped, and resumed, leaves the same bytes as one that was not."""

import signal
from pathlib import Path

import pytest

from kills import contents, finished, killed, make_clip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, bytes]]:
    """A run's arguments, and what it leaves when nothing ends it."""
    folder = tmp_path_factory.mktemp("whole")
    words = make_clip(folder, 40)
    finished(words, folder / "out")
    return words, contents(folder / "out")


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda n: n.name
)
def test_a_run_that_was_ended_is_completed(
    made: tuple[list[str], dict[str, bytes]], tmp_path: Path, number: signal.Signals
) -> None:
    words, whole = made
    assert killed(words, tmp_path / "parts", [0.1], number) == 1
    finished(words, tmp_path / "parts")
    assert contents(tmp_path / "parts") == whole
    assert not list(tmp_path.rglob(".stremn-*"))
