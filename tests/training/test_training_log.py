import logging
from pathlib import Path

import pytest

from stremn.training.log import CsvLog, Means, TrainingLog


def test_means_are_per_name_and_start_again() -> None:
    means = Means()
    means.add({"a": 1.0, "b": 5.0})
    means.add({"a": 3.0})
    assert means.take() == {"a": 2.0, "b": 5.0}
    assert means.take() == {}


def test_csv_grows_columns_and_drops_what_will_come_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.csv"
    log = CsvLog(path, keep_until=0)
    log.write(1, {"loss": 0.5})
    log.write(2, {"loss": 0.25, "dice": 1e-9})
    log.write(3, {"dice": 2.0})
    assert path.read_text().splitlines() == ["step,loss,dice", "1,0.5,", "2,0.25,1e-09", "3,,2"]
    again = CsvLog(path, keep_until=2)
    again.write(3, {"loss": 8.0})
    again.write(3, {"loss": 7.0})  # the same step once more
    assert path.read_text().splitlines() == ["step,loss,dice", "1,0.5,", "2,0.25,1e-09", "3,7,"]


def test_lines_say_step_numbers_and_time_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "stremn.training.fit")
    with TrainingLog(tmp_path, first=100, steps=10_000, tensorboard=False) as log:
        log.advance(110)
        log.train(110, {"loss": 0.123456, "lr": 1e-5})
        log.validation(110, {"J": 0.75})
    line, scores = caplog.messages
    assert line.startswith("step 110/10000 loss 0.1235 lr 1.00e-05 left ")
    assert line.endswith("m")
    assert scores == "validation at step 110: J 0.75"
    assert (tmp_path / "validation.csv").read_text().splitlines() == ["step,J", "110,0.75"]
