"""What a predictor is trained on: the horizon and the losses over a clip."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from stremn.errors import StremnError
from stremn.prediction.baselines import TRIVIAL
from stremn.training.prediction import cost
from stremn.training.prediction.data import FrameBatch, collate
from stremn.training.prediction.recipe import HorizonConfig, LossConfig
from stremn.training.prediction.rollout import (
    clip_loss,
    frame_loss,
)
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
    assert "cannot be read" not in train(recipe, [], None, resume=False, dry_run=True)
    for file in (tmp_path / "videos" / "val" / "val").iterdir():
        file.unlink()
    text = train(recipe, [], None, resume=False, dry_run=True)
    assert "training cannot start yet" in text
    assert "val" in text
