"""Random command lines end in a result or a sentence: a short campaign (see `command_lines`)."""

from pathlib import Path

import pytest

from command_lines import Outcome, campaign, lines, try_line


@pytest.mark.usefixtures("unchecked")
def test_every_line_ends_in_a_result_or_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lines(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("command_lines.TOKENS", ["", "-1", "nan", "9" * 60, "x" * 300, "--size"])
    outcome = campaign(made, 2)
    assert not outcome.faults, "\n".join(outcome.faults)
    assert outcome.sentences


@pytest.mark.usefixtures("unchecked")
def test_a_path_that_the_system_refuses_is_named(tmp_path: Path) -> None:
    outcome = Outcome()
    try_line(["analyze", "memory", "x" * 300, "-o", str(tmp_path / "out")], outcome)
    assert (outcome.sentences, outcome.faults) == (1, [])
