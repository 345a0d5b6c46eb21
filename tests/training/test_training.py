import csv
import itertools
import json
import math
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import two_processes
from accelerate.state import PartialState
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from stremn.core import hardware
from stremn.errors import StremnError
from stremn.moved import with_current_facts, with_current_requests
from stremn.training.config import TrainConfig, refuse_differences
from stremn.training.fit import FitResult, fit
from stremn.training.loading import Phase
from stremn.training.loss_report import LossReport
from stremn.training.optimization import learning_rate, parameter_groups
from stremn.training.processes import _forget_another_device, open_accelerator


@dataclass(frozen=True)
class Points:
    x: Tensor
    y: Tensor

    def to(self, device: torch.device) -> "Points":
        return Points(self.x.to(device), self.y.to(device))


class Line(Dataset[tuple[Tensor, Tensor]]):
    """Points on a plane, one for each number; `bad` gives a point that is not a number."""

    def __init__(self, offset: int = 0, bad: int | None = None) -> None:
        self.offset, self.bad, self.seen = offset, bad, []

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.seen.append(index)
        x = torch.from_numpy(np.random.default_rng((7, self.offset + index)).normal(size=5)).float()
        y = x @ torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0]) + 1
        return x, y * math.nan if index == self.bad else y


def collate(samples: list[tuple[Tensor, Tensor]]) -> Points:
    return Points(torch.stack([x for x, _ in samples]), torch.stack([y for _, y in samples]))


def squared_error(model: nn.Module, batch: Points, progress: float) -> LossReport:
    error = model(batch.x).squeeze(1) - batch.y
    return LossReport(error.square().mean(), {"progress": progress})


def noisy_error(model: nn.Module, batch: Points, progress: float) -> LossReport:
    """Draws from all three global generators, as dropout, Gumbel noise and hand rules do."""
    noise = torch.randn(1).item() + np.random.rand() + random.random()  # noqa: NPY002
    error = model(batch.x).squeeze(1) - batch.y + 0.1 * noise
    return LossReport(error.square().mean())


def make_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))


def make_phases(steps: int, loss=noisy_error, batch: int = 4, bad: int | None = None):
    first = steps // 3
    return [
        Phase("first", first, batch, Line(0, bad), collate, loss),
        Phase("second", steps - first, batch * 2, Line(10**6), collate, loss),
    ]


def make_config(steps: int, **changes) -> TrainConfig:
    values = {"lr": 1e-2, "warmup_steps": 3, "ema": 0.9, "clip_norm": 1.0, "log_every": 5}
    return TrainConfig(steps=steps, **({"device": "cpu"} | values | changes))


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


class KilledError(Exception):
    pass


def killed_after(loss, steps: int, rehearsed: int = 2):
    """A loss that dies in the middle of a step, as a killed process does.

    Before the first step it is called for each phase to be rehearsed.
    """
    count = -rehearsed

    def dying(model: nn.Module, batch: Points, progress: float) -> LossReport:
        nonlocal count
        count += 1
        if count > steps:
            raise KilledError
        return loss(model, batch, progress)

    return dying


@pytest.mark.parametrize("death", [1, 4, 7, 8, 13, 20])
def test_killed_and_resumed_equals_uninterrupted_bitwise(tmp_path: Path, death: int) -> None:
    config = make_config(21, checkpoint_every=4)
    whole = make_model()
    expected = fit(whole, make_phases(21), config, out=tmp_path / "whole")

    phases = make_phases(21, killed_after(noisy_error, death))
    with pytest.raises(KilledError):
        fit(make_model(), phases, config, out=tmp_path / "cut")
    model = make_model(seed=5)  # whatever it starts from, the checkpoint decides
    if death < 4:
        model = make_model()  # no checkpoint yet: the run starts again
    result = fit(model, make_phases(21), config, out=tmp_path / "cut", resume=True)

    assert result.step == 21
    assert same_weights(model, whole)
    assert same_weights(result.model, expected.model)
    assert not same_weights(result.model, model)  # the average is something else


def test_phases_use_each_sample_once_and_in_order(tmp_path: Path) -> None:
    phases = make_phases(9)
    fit(make_model(), phases, make_config(9), out=tmp_path)
    rehearsed, first, second = 1, 3 * 4, 6 * 8  # the first batch of each phase is tried before
    assert phases[0].dataset.seen == [*range(rehearsed * 4), *range(first)]
    assert phases[1].dataset.seen == [*range(rehearsed * 8), *range(second)]


@pytest.mark.parametrize("said", ["CUDA out of memory. Tried to", "can't allocate memory: you"])
def test_a_batch_that_does_not_fit_is_told_before_the_first_step(tmp_path: Path, said: str) -> None:
    def loss(model: nn.Module, batch: Points, progress: float) -> LossReport:
        if len(batch.x) > 4:
            raise RuntimeError(said)
        return squared_error(model, batch, progress)

    message = r"Phase 'second': 8 of its samples at once do not fit .* cpu.*train\.micro_batch"
    with pytest.raises(StremnError, match=message):
        fit(make_model(), make_phases(9, loss), make_config(9), out=tmp_path)
    assert not (tmp_path / "log.csv").exists()
    fit(make_model(), make_phases(9, loss), make_config(9, micro_batch=4), out=tmp_path)


def test_other_errors_of_a_loss_are_not_taken_for_memory(tmp_path: Path) -> None:
    def loss(model: nn.Module, batch: Points, progress: float) -> LossReport:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        fit(make_model(), make_phases(9, loss), make_config(9), out=tmp_path)


def test_accumulation_equals_the_whole_batch(tmp_path: Path) -> None:
    results = []
    for micro in (None, 2):
        model = make_model().double()
        model[2] = nn.Identity()
        phases = make_phases(6, lambda m, b, p: squared_error(m, Points(b.x.double(), b.y), p))
        fit(model, phases, make_config(6, micro_batch=micro), out=tmp_path / str(micro))
        results.append(model)
    pairs = zip(results[0].parameters(), results[1].parameters(), strict=True)
    assert all(torch.allclose(x, y, rtol=1e-6) for x, y in pairs)


def test_it_learns_and_writes_what_it_says(tmp_path: Path) -> None:
    scores = iter([{"J": 0.5}, {"J": 0.7}, {"J": 0.6}])
    seen: list[Path] = []
    config = make_config(60, validate_every=20, log_every=10, lr=5e-2, ema=None)
    result = fit(
        make_model(),
        make_phases(60, squared_error),
        config,
        out=tmp_path,
        validate=lambda model: next(scores),
        pictures=lambda model, path: seen.append(path),
    )
    assert isinstance(result, FitResult)
    assert (result.best, result.stopped, result.step) == (0.7, "finished", 60)
    rows = read_rows(tmp_path / "log.csv")
    assert [int(row["step"]) for row in rows] == [10, 20, 30, 40, 50, 60]
    assert float(rows[-1]["loss"]) < 0.3 * float(rows[0]["loss"])
    assert 0 <= float(rows[0]["data_wait"]) < 1
    assert {"lr", "seconds_per_step", "gradient_norm", "progress"} <= rows[0].keys()
    validation = read_rows(tmp_path / "validation.csv")
    assert [(r["step"], r["J"]) for r in validation] == [
        ("20", "0.5"),
        ("40", "0.7"),
        ("60", "0.6"),
    ]
    last = load_file(tmp_path / "last.safetensors")
    assert torch.equal(last["0.weight"], result.model.state_dict()["0.weight"])
    assert not torch.equal(last["0.weight"], load_file(tmp_path / "best.safetensors")["0.weight"])
    assert [path.name for path in seen] == ["step_0000020", "step_0000040", "step_0000060"]
    assert not list(tmp_path.glob(".*tmp*"))


def test_without_a_folder_the_result_is_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, model = make_model(), make_model()
    fit(kept, make_phases(6), make_config(6), out=tmp_path / "kept")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    settings = make_config(6, validate_every=2, checkpoint_every=3, tensorboard=True)
    result = fit(
        model,
        make_phases(6),
        settings,
        out=None,
        validate=lambda _: {"J": 0.5},
        pictures=lambda *_: pytest.fail("pictures need a folder"),
        recipe={},
    )
    assert (result.step, result.best) == (6, 0.5)
    assert same_weights(model, kept)
    with pytest.raises(StremnError, match=r"stopped at step 0: loss nan.*Nothing was saved\."):
        fit(make_model(), make_phases(6, squared_error, bad=0), make_config(6), out=None)
    assert not list(Path().iterdir())


def test_log_is_continued_without_repeated_rows(tmp_path: Path) -> None:
    config = make_config(20, checkpoint_every=4, log_every=1)
    phases = make_phases(20, killed_after(noisy_error, 10))
    with pytest.raises(KilledError):
        fit(make_model(), phases, config, out=tmp_path)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 11
    fit(make_model(), make_phases(20), config, out=tmp_path, resume=True)
    steps = [int(row["step"]) for row in read_rows(tmp_path / "log.csv")]
    assert steps == list(range(1, 21))


def test_not_finite_loss_stops_with_the_batch_saved(tmp_path: Path) -> None:
    config = make_config(30, checkpoint_every=2)
    phases = make_phases(30, squared_error, bad=22)  # batch of step 5
    message = r"stopped at step 5: loss nan.*not_finite_step_0000005_process_0.*last good"
    with pytest.raises(StremnError, match=message):
        fit(make_model(), phases, config, out=tmp_path)
    saved = load_file(tmp_path / "not_finite_step_0000005_process_0.safetensors")
    assert saved["0.y"].isnan().tolist() == [False, False, True, False]
    weights = load_file(tmp_path / "checkpoint.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())
    # The cause removed, the run goes on.
    phases = make_phases(30, squared_error)
    assert fit(make_model(), phases, config, out=tmp_path, resume=True).step == 30


def test_infinite_gradient_of_a_finite_loss_stops_too(tmp_path: Path) -> None:
    def root(model: nn.Module, batch: Points, progress: float) -> LossReport:
        return LossReport((model(batch.x) * 0).sum().abs().sqrt())

    with pytest.raises(StremnError, match=r"gradient norm (nan|inf).*no checkpoint was due yet"):
        fit(make_model(), make_phases(5, root), make_config(5), out=tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_with_a_checkpoint_and_resumes_exactly(tmp_path: Path, number: int) -> None:
    config = make_config(15)
    whole = make_model()
    fit(whole, make_phases(15), config, out=tmp_path / "whole")

    def loss(model: nn.Module, batch: Points, progress: float) -> LossReport:
        if round(progress * 15) == 6:
            os.kill(os.getpid(), number)
        return noisy_error(model, batch, progress)

    handler = signal.getsignal(number)
    result = fit(make_model(), make_phases(15, loss), config, out=tmp_path / "cut")
    assert (result.step, result.stopped) == (7, "interrupted")
    assert signal.getsignal(number) is handler
    model = make_model()
    fit(model, make_phases(15), config, out=tmp_path / "cut", resume=True)
    assert same_weights(model, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_whole_group_spares_the_workers(tmp_path: Path, number: int) -> None:
    def loss(model: nn.Module, batch: Points, progress: float) -> LossReport:
        if round(progress * 15) == 6:
            workers = multiprocessing.active_children()
            assert len(workers) == 2
            for process in workers:
                os.kill(process.pid, number)
            os.kill(os.getpid(), number)
            time.sleep(0.2)  # time to die, for those who would
        return noisy_error(model, batch, progress)

    config = make_config(15, workers=2)
    result = fit(make_model(), make_phases(15, loss), config, out=tmp_path)
    assert (result.step, result.stopped) == (7, "interrupted")


def test_time_budget_stops_cleanly_and_validates(tmp_path: Path) -> None:
    config = make_config(1000, time_budget_minutes=0.001)
    phases = make_phases(1000)
    result = fit(make_model(), phases, config, out=tmp_path, validate=lambda _: {"J": 0.25})
    assert result.stopped == "time budget"
    assert 0 < result.step < 1000
    assert result.best == 0.25


def test_resuming_with_another_recipe_says_what_differs(tmp_path: Path) -> None:
    recipe = {"data": {"size": 256}, "validation": {"slots": 6}}
    fit(make_model(), make_phases(6), make_config(6), out=tmp_path, recipe=recipe)
    with pytest.raises(StremnError, match=r"data\.size: 256 -> 384; train\.lr: 0\.01 -> 0\.02"):
        fit(
            make_model(),
            make_phases(6),
            make_config(6, lr=2e-2),
            out=tmp_path,
            recipe={"data": {"size": 384}, "validation": {"slots": 4}},
            resume=True,
        )
    result = fit(
        make_model(),
        make_phases(9),
        make_config(9, log_every=3, workers=0),
        out=tmp_path,
        recipe=recipe | {"validation": {"slots": 4}},
        resume=True,
        accept=["train.steps"],
    )
    assert result.step == 9


def test_a_checkpoint_with_keys_of_an_earlier_version_is_resumed(tmp_path: Path) -> None:
    recipe = {"stages": [{"slots": 6}], "data": {"sources": {"a": {"parameters": {"kin": 0.5}}}}}
    fit(make_model(), make_phases(6), make_config(6), out=tmp_path, recipe=recipe)
    current = {
        "stages": [{"memory_slots": 6}],
        "data": {"sources": {"a": {"parameters": {"same_class": 0.5}}}},
    }
    result = fit(
        make_model(), make_phases(6), make_config(6), out=tmp_path, recipe=current, resume=True
    )
    assert result.step == 6
    current["stages"] = [{"memory_slots": 4}]
    with pytest.raises(StremnError, match=r"stages\.0\.memory_slots: 6 -> 4"):
        fit(make_model(), make_phases(6), make_config(6), out=tmp_path, recipe=current, resume=True)


def test_resuming_with_another_network_says_so_and_changes_nothing(tmp_path: Path) -> None:
    fit(make_model(), make_phases(3), make_config(3), out=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Dropout(0.2), nn.Linear(9, 1))
    with pytest.raises(StremnError, match=r"another network .*size mismatch.*set model\.start"):
        fit(other, make_phases(3), make_config(3), out=tmp_path, resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_existing_training_is_not_overwritten(tmp_path: Path) -> None:
    def run(size: int, **how) -> FitResult:
        recipe = {"data": {"size": size}}
        return fit(make_model(), make_phases(3), make_config(3), out=tmp_path, recipe=recipe, **how)

    run(256)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    facts = json.loads(before["recipe.json"])
    assert (facts["data"]["size"], facts["train"]["steps"]) == (256, 3)
    with pytest.raises(StremnError, match="already holds a training"):
        run(384)
    with pytest.raises(StremnError, match="Cannot resume with another recipe"):
        run(384, resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_resuming_a_finished_training_repeats_no_row(tmp_path: Path) -> None:
    for resume in (False, True):
        result = fit(
            make_model(),
            make_phases(6),
            make_config(6, log_every=2, validate_every=3),
            out=tmp_path,
            validate=lambda _: {"J": 0.5},
            resume=resume,
        )
        assert (result.step, result.stopped) == (6, "finished")
        assert [row["step"] for row in read_rows(tmp_path / "validation.csv")] == ["3", "6"]
        assert [row["step"] for row in read_rows(tmp_path / "log.csv")] == ["2", "4", "6"]


def test_phases_must_fill_the_steps(tmp_path: Path) -> None:
    with pytest.raises(StremnError, match=r"have 6 steps together, but train\.steps is 7"):
        fit(make_model(), make_phases(6), make_config(7), out=tmp_path)


def test_batch_must_divide(tmp_path: Path) -> None:
    with pytest.raises(StremnError, match="batch of 4 cannot be split evenly over 1 process"):
        fit(make_model(), make_phases(6), make_config(6, micro_batch=3), out=tmp_path)


def test_monitor_must_be_reported(tmp_path: Path) -> None:
    with pytest.raises(StremnError, match=r"train\.monitor is 'J', but validation reports F"):
        fit(
            make_model(),
            make_phases(3),
            make_config(3),
            out=tmp_path,
            validate=lambda _: {"F": 1.0},
        )


def test_lower_can_be_better(tmp_path: Path) -> None:
    scores = iter([3.0, 1.0, 2.0])
    config = make_config(6, monitor="MSE", monitor_mode="min", validate_every=2)
    result = fit(
        make_model(),
        make_phases(6),
        config,
        out=tmp_path,
        validate=lambda _: {"MSE": next(scores)},
    )
    assert result.best == 1.0


def test_a_run_killed_while_it_validates_scores_that_step_when_it_goes_on(tmp_path: Path) -> None:
    def killed(_: nn.Module) -> dict[str, float]:
        raise KilledError

    settings = make_config(9, validate_every=3, checkpoint_every=3)
    with pytest.raises(KilledError):
        fit(make_model(), make_phases(9), settings, out=tmp_path, validate=killed)
    scores = iter([0.9, 0.2, 0.1])
    result = fit(
        make_model(),
        make_phases(9),
        settings,
        out=tmp_path,
        resume=True,
        validate=lambda _: {"J": next(scores)},
    )
    assert result.best == 0.9
    steps = [row["step"] for row in read_rows(tmp_path / "validation.csv")]
    assert steps == ["3", "6", "9"]
    again = fit(  # nothing is left to do, nor to score
        make_model(), make_phases(9), settings, out=tmp_path, resume=True, validate=killed
    )
    assert (again.best, again.step) == (0.9, 9)


def test_a_score_that_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    scores = iter([math.nan, 0.2, math.nan])
    result = fit(
        make_model(),
        make_phases(3),
        make_config(3, validate_every=1, monitor="ssim", monitor_mode="max"),
        out=tmp_path,
        validate=lambda _: {"ssim": next(scores)},
    )
    assert result.best == 0.2


def test_the_best_is_looked_for_anew_by_another_score(tmp_path: Path) -> None:
    def best(monitor: str, mode: Literal["max", "min"], *, resume: bool) -> float | None:
        return fit(
            make_model(),
            make_phases(3),
            make_config(3, validate_every=3, monitor=monitor, monitor_mode=mode),
            out=tmp_path,
            resume=resume,
            recipe={},
            accept=("train.monitor", "train.monitor_mode"),
            validate=lambda _: {"ssim": 0.9, "mse": 50.0},
        ).best

    assert best("ssim", "max", resume=False) == 0.9
    assert best("mse", "min", resume=True) == 50.0  # no step is left, but the score is another


def test_the_best_is_looked_for_anew_where_validation_differs(tmp_path: Path) -> None:
    def score(steps: int, j: float, frames: int) -> float | None:
        return fit(
            make_model(),
            make_phases(steps),
            make_config(steps, validate_every=3),
            out=tmp_path,
            resume=steps > 3,
            recipe={"validation": {"frames": frames}},
            accept=("train.steps",),
            validate=lambda _: {"J": j},
        ).best

    assert score(3, 0.9, frames=5) == 0.9
    assert score(6, 0.8, frames=5) == 0.9
    assert score(9, 0.7, frames=50) == 0.7


class Unlucky(Line):
    """Has no sample of one number."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == 5:
            raise StremnError("No usable clip: the masks\nmay be empty.")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_worker_says_is_said_alone(tmp_path: Path, workers: int) -> None:
    phase = Phase("only", 6, 4, Unlucky(), collate, squared_error)
    with pytest.raises(StremnError) as told:
        fit(make_model(), [phase], make_config(6, workers=workers), out=tmp_path)
    assert str(told.value) == "No usable clip: the masks\nmay be empty."
    assert not multiprocessing.active_children()  # they would keep the process from its end


def test_workers_give_the_same_weights(tmp_path: Path) -> None:
    models = []
    for workers in (0, 2):
        models.append(make_model())
        fit(
            models[-1],
            make_phases(9),
            make_config(9, workers=workers),
            out=tmp_path / str(workers),
        )
    assert same_weights(*models)


def test_learning_rate_curve() -> None:
    config = make_config(101, lr=1e-3, lr_end=1e-5, warmup_steps=10)
    rates = [learning_rate(config, step) for step in range(101)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == rates[10] == pytest.approx(1e-3)
    assert rates[55] == pytest.approx((1e-3 + 1e-5) / 2)  # half of the cosine
    assert rates[-1] == pytest.approx(1e-5)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    constant = make_config(101, lr=1e-3, schedule="constant", warmup_steps=0)
    assert {learning_rate(constant, step) for step in (0, 50, 100)} == {1e-3}


def test_multipliers_scale_freeze_and_the_longest_prefix_wins(tmp_path: Path) -> None:
    model = make_model()
    model[3].bias.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = make_config(
        3, lr_multipliers={"": 0.0, "0": 0.5, "0.bias": 2.0, "3": 1.0}, weight_decay=0.1
    )
    groups = parameter_groups(model, config)
    found = {(g["multiplier"], g["weight_decay"], len(g["params"])) for g in groups}
    assert found == {(0.5, 0.1, 1), (2.0, 0.0, 1), (1.0, 0.1, 1)}
    fit(model, make_phases(3), config, out=tmp_path)
    after = model.state_dict()
    assert torch.equal(after["3.bias"], before["3.bias"])  # frozen by the model itself
    assert not torch.equal(after["0.weight"], before["0.weight"])


def test_multiplier_of_no_parameter_is_an_error() -> None:
    config = make_config(3, lr_multipliers={"encoder": 0.5})
    with pytest.raises(StremnError, match=r"starts with 'encoder'.*parts are: 0, 3"):
        parameter_groups(make_model(), config)


def test_everything_frozen_is_an_error() -> None:
    with pytest.raises(StremnError, match="Nothing to train"):
        parameter_groups(make_model(), make_config(3, lr_multipliers={"": 0.0}))


def test_bfloat16_autocasts_the_model_not_the_loss(tmp_path: Path) -> None:
    types: list[torch.dtype] = []

    def loss(model: nn.Module, batch: Points, progress: float) -> LossReport:
        output = model(batch.x)
        types.append(output.dtype)
        return LossReport((output.squeeze(1).float() - batch.y).square().mean())

    model = make_model()
    fit(model, make_phases(3, loss), make_config(3, precision="bfloat16"), out=tmp_path)
    assert types == [torch.bfloat16] * (2 + 3)  # two phases are rehearsed
    assert model[0].weight.dtype == torch.float32


@pytest.mark.parametrize(("fast", "chosen"), [(True, "bfloat16"), (False, "float32")])
def test_auto_precision_is_decided_at_the_start_and_kept(
    fast: bool, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda device: fast)
    config = make_config(3, precision="auto")
    fit(make_model(), make_phases(3), config, out=tmp_path, recipe={})
    written = json.loads((tmp_path / "recipe.json").read_text())
    assert written["train"]["precision"] == chosen
    # On a machine of the other kind it goes on as it began, unless told otherwise.
    monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda device: not fast)
    fit(make_model(), make_phases(3), config, out=tmp_path, recipe={}, resume=True)
    written = json.loads((tmp_path / "recipe.json").read_text())
    assert written["train"]["precision"] == chosen
    other = make_config(3, precision="float32" if fast else "bfloat16")
    with pytest.raises(StremnError, match=f"Changed: train.precision: .*{chosen}"):
        fit(make_model(), make_phases(3), other, out=tmp_path, recipe={}, resume=True)
    again = {"resume": True, "accept": ["train.precision"]}
    assert fit(make_model(), make_phases(3), other, out=tmp_path, recipe={}, **again).step == 3


def test_tensorboard_is_written(tmp_path: Path) -> None:
    fit(make_model(), make_phases(5), make_config(5, tensorboard=True), out=tmp_path)
    assert list((tmp_path / "tensorboard").glob("events*"))


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    """The same global batch over two gloo processes: same weights, no sample twice."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # What torchrun and accelerate launch set; without them, since they wait for name servers.
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    common |= {"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    script = [sys.executable, str(Path(two_processes.__file__))]
    processes = [
        subprocess.Popen(
            [*script, str(tmp_path / "2")],
            env=os.environ | common | {"RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in "01"
    ]
    assert [process.wait(timeout=200) for process in processes] == [0, 0]
    two_processes.run(tmp_path / "1", rank=0)
    one = load_file(tmp_path / "1" / "last.safetensors")
    two = load_file(tmp_path / "2" / "last.safetensors")
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-5, atol=1e-6)
    seen = [set((tmp_path / "2" / f"seen_{rank}").read_text().split()) for rank in (0, 1)]
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] == set((tmp_path / "1" / "seen_0").read_text().split())
    losses = [[float(row["loss"]) for row in read_rows(tmp_path / w / "log.csv")] for w in "12"]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_an_accepted_key_may_fill_a_table_that_was_empty() -> None:
    before, now = {"a": {}, "b": 1}, {"a": {"c": 2}, "b": 1}
    refuse_differences(before, now, ["a.c"])
    refuse_differences(now, before, ["a.c"])
    with pytest.raises(StremnError, match=r"a: \{\} -> None"):
        refuse_differences(before, now, ["d"])


def test_a_process_that_trained_on_one_device_can_train_on_another() -> None:
    """Accelerate keeps the first device of a process, without a word."""
    open_accelerator("cpu")
    assert PartialState().device.type == "cpu"
    _forget_another_device("cpu")
    assert PartialState._shared_state
    _forget_another_device("cuda")
    assert not PartialState._shared_state
    assert open_accelerator("cpu").device.type == "cpu"


def test_names_that_users_chose_are_never_renamed() -> None:
    """A source may be called as a key was in earlier versions."""
    recipe = {
        "data": {"stills": {"rival": {"weight": 0.5}}, "sources": {"slots": {"stills": ["rival"]}}},
        "stages": [{"memory_slots": 3, "sources": {"slots": 1.0}}],
    }
    assert with_current_facts(recipe) == recipe
    named = ["data.stills.rival.weight=0.5", "stages.0.sources.slots=1.0"]
    assert with_current_requests(named) == named
    with pytest.warns(DeprecationWarning, match="'slots' in stages.0 is called 'memory_slots'"):
        assert with_current_requests(["stages.0.slots=3"]) == ["stages.0.memory_slots=3"]


def test_many_differences_are_counted_rather_than_listed() -> None:
    before = {"data": {"kept": 1}}
    now = {"data": {"kept": 1, **{f"set{i}": i for i in range(9)}}}
    with pytest.raises(StremnError, match=r"data\.set5: None -> 5; and 3 more\. Restore") as error:
        refuse_differences(before, now, ())
    assert "set6" not in str(error.value)
    del now["data"]["set6"], now["data"]["set7"], now["data"]["set8"]
    with pytest.raises(StremnError, match=r"data\.set5: None -> 5\. Restore"):
        refuse_differences(before, now, ())
