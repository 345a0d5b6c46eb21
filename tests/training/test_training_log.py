import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import RecordWriter

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


def test_without_a_folder_lines_are_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, "stremn.training.fit")
    with TrainingLog(None, first=0, steps=10, tensorboard=True) as log:
        log.train(1, {"loss": 0.5})
        log.validation(1, {"J": 0.75})
    assert len(caplog.messages) == 2
    assert not list(tmp_path.iterdir())


def test_tensorboard_reads_the_numbers_and_hides_what_is_trained_again(tmp_path: Path) -> None:
    with TrainingLog(tmp_path, first=0, steps=4, tensorboard=True) as log:
        for step in (1, 2, 3):
            log.train(step, {"loss": step / 8})
    with TrainingLog(tmp_path, first=2, steps=4, tensorboard=True) as log:
        log.train(3, {"loss": 0.5})
        log.validation(3, {"J": 0.75})
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    found = [(event.step, event.value) for event in board.Scalars("train/loss")]
    assert found == [(1, 0.125), (2, 0.25), (3, 0.5)]
    assert [(e.step, e.value) for e in board.Scalars("validation/J")] == [(3, 0.75)]


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_when_closed(records: RecordWriter) -> None:
    records._writer.close()
    full()


@pytest.mark.parametrize(
    ("method", "fails"), [("write", full), ("flush", full), ("close", full_when_closed)]
)
@pytest.mark.parametrize("from_the_start", [True, False])
def test_a_full_disk_ends_the_tensorboard_file_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    method: str,
    fails: Callable[..., None],
    from_the_start: bool,
) -> None:
    if from_the_start:
        monkeypatch.setattr(RecordWriter, method, fails)
    with TrainingLog(tmp_path, first=0, steps=4, tensorboard=True) as log:
        monkeypatch.setattr(RecordWriter, method, fails)
        for step in (1, 2, 3):
            log.train(step, {"loss": 0.5})
            log.validation(step, {"J": 0.75})
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "No space left on device" in warning.message
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 4
    assert len((tmp_path / "validation.csv").read_text().splitlines()) == 4


def test_a_tensorboard_folder_that_cannot_be_made_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tensorboard").write_text("a file")
    with TrainingLog(tmp_path, first=0, steps=4, tensorboard=True) as log:
        log.train(1, {"loss": 0.5})
    assert "TensorBoard's file cannot be written (File exists)" in caplog.text
