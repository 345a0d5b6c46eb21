"""What a predictor is trained on: the horizon and the losses over a clip."""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from stremn.core.config import build
from stremn.core.weights import fingerprint
from stremn.errors import StremnError
from stremn.evaluation.prediction.evaluation import PredictionScores
from stremn.prediction.baselines import TRIVIAL
from stremn.prediction.weights import Predictor, load_predictor, save_predictor
from stremn.training.prediction import cost
from stremn.training.prediction.data import FrameBatch, collate
from stremn.training.prediction.recipe import SCORES, HorizonConfig, LossConfig, PredictionRecipe
from stremn.training.prediction.rollout import (
    clip_loss,
    frame_loss,
)
from stremn.training.prediction.validation import Validation
from stremn.training.tasks import train
from tiny_predictor import clip, tiny, tiny_of


def test_the_free_part_grows_from_one_frame_to_all():
    horizon = HorizonConfig(observed=10, future=20, full_at=0.5)
    free = [horizon.free(p / 100) for p in range(101)]
    assert free[0] == 1
    assert free[50] == free[100] == 20
    assert free == sorted(free)
    assert HorizonConfig(observed=10, future=20, full_at=0).free(0.0) == 20


def test_the_free_part_may_start_to_grow_later():
    horizon = HorizonConfig(observed=10, future=11, free_from=0.3, full_at=0.5)
    assert [horizon.free(p) for p in (0.0, 0.3, 0.4, 0.5, 1.0)] == [1, 1, 6, 11, 11]
    at_once = HorizonConfig(observed=10, future=11, free_from=0.5, full_at=0.5)
    assert [at_once.free(p) for p in (0.49, 0.5)] == [1, 11]
    with pytest.raises(ValueError, match=r"free_from 0\.6 must not be above full_at 0\.5"):
        HorizonConfig(free_from=0.6, full_at=0.5)


def test_gradient_loss_is_eased_in():
    x, y = clip(1, 2, seed=1), clip(1, 2)
    config = LossConfig(gradient_weight=0.5, gradient_ramp=0.4)
    losses = [float(frame_loss(x, y, config, p).loss) for p in (0.0, 0.2, 0.4, 1.0)]
    assert losses[1] - losses[0] == pytest.approx((losses[2] - losses[0]) / 2, rel=1e-4)
    assert losses[2] == losses[3] > losses[0]
    plain = frame_loss(x, y, LossConfig(pixel="plain", gradient_weight=0), 0.0)
    assert float(plain.loss) == pytest.approx(
        float((x - y).abs().mean() + (x - y).square().mean()), rel=1e-6
    )
    assert plain.scalars["l1"] == pytest.approx(float((x - y).abs().mean()), rel=1e-6)


@pytest.mark.parametrize("kind", ["stremn", "convlstm", "predrnn"])
def test_clip_loss_scores_every_predicted_frame_of_any_predictor(kind):
    model = tiny_of(kind)
    frames = (clip(2, 8) * 255).to(torch.uint8)
    batch = collate(list(frames)).to(torch.device("cpu"))
    horizon = HorizonConfig(observed=5, future=3)
    loss = LossConfig(pixel="plain", gradient_weight=0)
    for progress, free in ((0.0, 1), (1.0, 3)):
        report = clip_loss(model, batch, progress, horizon=horizon, loss=loss)
        predicted = model.rollout(frames / 255, 8 - free, free)
        error = predicted.frames - frames[:, predicted.first :] / 255
        expected = float((error.abs().mean() + error.square().mean()).detach())
        assert float(report.loss.detach()) == pytest.approx(expected, rel=1e-4)


def test_a_weight_of_future_frames_needs_no_observed_frame_that_was_predicted():
    """4 -> 4: the first frame predicted is the first of the future, so all weigh the same."""
    frames = (clip(2, 8) * 255).to(torch.uint8)
    horizon = HorizonConfig(observed=4, future=4, full_at=0)
    plain = LossConfig(pixel="squared", gradient_weight=0)
    losses = [
        float(clip_loss(tiny(), FrameBatch(frames), 1.0, horizon=horizon, loss=loss).loss.detach())
        for loss in (plain, plain.model_copy(update={"future_weight": 4.0}))
    ]
    assert losses[0] == losses[1]


def test_no_future_frame_is_left_out_while_the_free_part_grows():
    batch, loss = FrameBatch((clip(2, 8) * 255).to(torch.uint8)), LossConfig(gradient_weight=0)
    horizon = HorizonConfig(observed=5, future=3, silent=1)
    assert torch.isfinite(clip_loss(tiny(), batch, 0.0, horizon=horizon, loss=loss).loss)
    horizon = HorizonConfig(observed=5, future=3, silent=2)
    with pytest.raises(StremnError, match=r"silent = 2 leaves out future .* begin with frame 6"):
        clip_loss(tiny(), batch, 0.0, horizon=horizon, loss=loss)
    assert torch.isfinite(clip_loss(tiny(), batch, 1.0, horizon=horizon, loss=loss).loss)


@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_future_frames_may_weigh_more_whether_predicted_freely_or_not(progress):
    model, frames = tiny(), (clip(2, 8) * 255).to(torch.uint8)
    horizon = HorizonConfig(observed=5, future=3)
    loss = LossConfig(pixel="squared", gradient_weight=0, future_weight=4.0)
    report = clip_loss(model, FrameBatch(frames), progress, horizon=horizon, loss=loss)
    predicted = model.rollout(frames / 255, 8 - horizon.free(progress), horizon.free(progress))
    target = frames[:, predicted.first :] / 255
    error = (predicted.frames - target).square().mean((0, 2, 3, 4)).detach()
    weights = torch.tensor([1.0, 4, 4, 4])  # frame 4 of 5 observed, then the future
    expected = float((error * weights).sum() / weights.sum())
    assert float(report.loss.detach()) == pytest.approx(expected, rel=1e-4)
    assert report.scalars["l2"] == pytest.approx(expected, rel=1e-4)


def test_training_on_a_few_clips_drives_the_error_down():
    """Squares that move at constant speed: a predictor that learns must beat copying the last."""
    frames = torch.zeros(4, 7, 1, 16, 16, dtype=torch.uint8)
    for index in range(4):
        for time in range(7):
            frames[index, time, 0, 3 * index : 3 * index + 4, time * 2 : time * 2 + 4] = 255
    model = tiny().train()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    horizon, loss = HorizonConfig(observed=5, future=2, full_at=0), LossConfig(pixel="plain")
    torch.manual_seed(0)
    for _ in range(80):
        optimizer.zero_grad()
        clip_loss(model, FrameBatch(frames), 0.0, horizon=horizon, loss=loss).loss.backward()
        optimizer.step()
    truth = frames[:, 5:] / 255
    errors = {
        "model": model.eval().rollout(frames / 255, 5, 2).frames[:, -2:],
        "last": TRIVIAL["copy-last"](frames[:, :5] / 255, 2),
    }
    mse = {name: float((x - truth).square().mean().detach()) for name, x in errors.items()}
    assert mse["model"] < 0.25 * mse["last"]


def test_a_dry_run_opens_the_validation_clips_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        """
task = "prediction"
batch = 1
[model]
preset = "natural"
fields = { size = 48 }
[data]
kind = "natural"
path = "videos"
channels = 3
size = 48
[horizon]
observed = 4
future = 1
[train]
steps = 2
lr = 1e-3
"""
    )
    monkeypatch.setenv("STREMN_DATA", str(tmp_path))
    seconds = cost._StepTime(first=1.0, last=1.0)
    monkeypatch.setattr(cost, "_step_time", lambda *_: seconds)
    for split in ("train", "val"):
        folder = tmp_path / "videos" / split / split
        folder.mkdir(parents=True)
        for number in range(6):
            picture = np.full((64, 80, 3), 20 * number + len(split), np.uint8)
            cv2.imwrite(str(folder / f"{number}.png"), picture)
    assert "training cannot start yet" not in train(recipe, [], None, resume=False, dry_run=True)
    for file in (tmp_path / "videos" / "val" / "val").iterdir():
        file.unlink()
    text = train(recipe, [], None, resume=False, dry_run=True)
    assert "training cannot start yet" in text
    assert "val" in text


def recipe_of(train: Mapping[str, Any] = {}, validation: Mapping[str, Any] = {}):
    values = {
        "task": "prediction",
        "data": {"kind": "moving-digits", "path": "digits"},
        "train": {"steps": 1, "lr": 1e-3, **train},
        "validation": {"average": 3, **validation},
    }
    return build(PredictionRecipe, values, "The recipe")


class GivenScores(Validation):
    """A validation whose SSIM is given for each model; averages of them score 0."""

    def __init__(
        self, out: Path, models: list[Predictor], ssim: list[float], **validation: int
    ) -> None:
        super().__init__(recipe_of(validation=validation), None, out)
        self._ssim = dict(zip(map(fingerprint, models), ssim, strict=True))

    def scores(self, model: Predictor) -> PredictionScores:
        ssim = self._ssim.get(fingerprint(model), 0.0)
        values = {name: np.full((2, 3), ssim) for name in ("ssim", "mse", "psnr")}
        return PredictionScores("validation", 0, values, ("a", "b"), 2)

    def kept(self) -> list[float]:
        """Return the scores in the names of the files, the best first."""
        found = [float(p.name.split("_")[0]) for p in self.folder.glob("*_*.safetensors")]
        return sorted(found, reverse=True)


def test_the_monitor_is_a_score_that_validation_reports(tmp_path: Path) -> None:
    assert recipe_of().train.monitor == "ssim"
    model = tiny()
    assert set(GivenScores(tmp_path, [model], [0.5])(model)) == set(SCORES)
    for name in SCORES:
        right, wrong = ("min", "max") if "mse" in name else ("max", "min")
        train = {"monitor": name, "monitor_mode": right}
        assert recipe_of(train=train).train.monitor == name
        with pytest.raises(StremnError, match=f'set train.monitor_mode = "{right}"'):
            recipe_of(train=train | {"monitor_mode": wrong})
    with pytest.raises(StremnError, match=r"train\.monitor is 'J', but validation reports ssim"):
        recipe_of(train={"monitor": "J"})


def test_checkpoints_are_scored_again_by_another_validation(tmp_path: Path) -> None:
    models = [tiny(seed) for seed in range(3)]
    first = GivenScores(tmp_path, models, [0.9, 0.8, 0.7], clips=4)
    for model in models[:2]:
        first(model)
    assert first.kept() == [0.9, 0.8]
    second = GivenScores(tmp_path, models, [0.1, 0.2, 0.3], clips=8)
    second(models[2])
    assert second.kept() == [0.3, 0.2, 0.1]
    second(models[0])  # the same weights are no second candidate
    assert second.kept() == [0.3, 0.2, 0.1]
    second.average(tiny())
    assert fingerprint(load_predictor(tmp_path / "chosen.safetensors")) == fingerprint(models[2])
    report = json.loads((tmp_path / "averaging.json").read_text())
    assert report["validation"]["best"] == {"ssim": 0.3, "averaged": 1}


def test_nothing_is_scored_again_for_another_number_to_average(tmp_path: Path) -> None:
    models = [tiny(seed) for seed in range(2)]
    GivenScores(tmp_path, models, [0.9, 0.8])(models[0])
    more = GivenScores(tmp_path, models, [0.1, 0.8], average=4)
    more(models[1])
    assert more.kept() == [0.9, 0.8]


def test_checkpoints_whose_names_do_not_say_what_scored_them_are_scored_again(
    tmp_path: Path,
) -> None:
    models = [tiny(seed) for seed in range(2)]
    (tmp_path / "averaging").mkdir()
    for model, score in zip(models, ("0.900000", "nan"), strict=True):
        name = f"{score}_{fingerprint(model):08x}.safetensors"
        save_predictor(model, tmp_path / "averaging" / name)
    now = GivenScores(tmp_path, models, [0.4, math.nan])
    now.average(tiny())
    assert now.kept() == [0.4]
    assert fingerprint(load_predictor(tmp_path / "chosen.safetensors")) == fingerprint(models[0])


def test_scores_are_ranked_as_numbers_and_what_is_none_is_not_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = [tiny(seed) for seed in range(4)]
    found = GivenScores(tmp_path, models, [math.nan, -0.2, -0.1, 0.05], average=2)
    found(models[0])
    assert found.kept() == []
    with caplog.at_level(logging.WARNING, "stremn.training.fit"):
        found.average(tiny())
    assert "no checkpoint has a score that is a number" in caplog.text
    assert not (tmp_path / "chosen.safetensors").exists()
    for model in models[1:]:
        found(model)
    assert found.kept() == [0.05, -0.1]
    found.average(tiny())
    assert fingerprint(load_predictor(tmp_path / "chosen.safetensors")) == fingerprint(models[3])
