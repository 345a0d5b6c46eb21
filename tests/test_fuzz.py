"""Mutated inputs end in a result or in a sentence: a short campaign (see `fuzzing`)."""

from pathlib import Path

import pytest

from fuzzing import Subject, campaign, subjects


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Subject]]:
    folder = tmp_path_factory.mktemp("fuzz")
    return folder, {subject.name: subject for subject in subjects(folder)}


NAMES = [
    "masks", "pictures", "videos", "sessions", "prediction sessions", "predictor weights",
    "segmentation weights", "weights of another task", "checkpoints", "recipes",
    "prediction recipes", "COCO files", "progress files", "records of runs", "run lengths",
    "boxes", "points", "submission zips", "jobs", "reports of jobs",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_input_ends_in_a_result_or_a_sentence(
    made: tuple[Path, dict[str, Subject]], name: str
) -> None:
    folder, known = made
    assert sorted(known) == sorted(NAMES)
    outcome = campaign([known[name]], folder, 60)
    assert not outcome.faults, "\n".join(outcome.faults)
    assert outcome.results[name] + outcome.refused[name] == 60
    assert outcome.refused[name]
