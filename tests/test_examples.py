"""Examples run, are short, and do what they say."""

import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from stremn.prediction.sessions import PredictionSession
from stremn.prediction.weights import load_memory_predictor

EXAMPLE = Path(__file__).parents[1] / "examples" / "memory_in_your_network.py"


@pytest.mark.parametrize(("rule", "frames"), [("spread", 3), ("oldest", 3), ("learned", 8)])
def test_the_memory_is_a_part_of_another_network(rule: str, frames: int) -> None:
    """Three slots tell of three frames; the learned choice has a gradient to all (Eq 3)."""
    network = runpy.run_path(str(EXAMPLE))["Recaller"](classes=3, slots=3)
    video = torch.rand(8, 2, 3, 16, 24, requires_grad=True)
    scores = network(video, rule)
    assert scores.shape == (8, 2, 3)
    scores[-1].sum().backward()
    reached = video.grad.flatten(1).abs().amax(1) > 0
    assert reached[0]  # pinned
    assert reached[7]  # the frame itself
    assert int(reached.sum()) == frames


def test_it_runs_as_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert "torch.Size([20, 2, 5])" in capsys.readouterr().out


def test_it_is_short() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 40


def test_the_unusual_moment_is_the_cut() -> None:
    """A camera that pans, then all of a sudden another picture, which pans too."""
    example = runpy.run_path(str(EXAMPLE.parent / "unusual_moment.py"))
    rng = np.random.default_rng(0)
    one, other = (
        cv2.GaussianBlur(rng.integers(0, 256, (48, 120, 3)).astype(np.uint8), (0, 0), 3)
        for _ in range(2)
    )
    frames = [one[:, i : i + 64] for i in range(14)] + [
        255 - other[:, i : i + 64] for i in range(6)
    ]
    session = PredictionSession(load_memory_predictor("natural"), score=True)
    (times, index), *_ = example["unusual"](frames, session)
    assert index == 14
    assert times > 2
