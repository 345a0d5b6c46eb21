"""Random command lines end in a result or a sentence: a short campaign (see `command_lines`)."""

from pathlib import Path

import pytest

from command_lines import campaign, lines


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
