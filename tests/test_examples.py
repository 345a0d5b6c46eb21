"""Examples run, are short, and do what they say."""

import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from stremn.evaluation.segmentation.evaluation import evaluate
from stremn.evaluation.segmentation.run_description import RunDescription
from stremn.networks.presets import SegmentationConfig, build_model
from stremn.prediction.building import build_predictor
from stremn.prediction.config import PREDICTOR_PRESETS
from stremn.prediction.sessions import PredictionSession
from stremn.prediction.weights import load_memory_predictor, save_predictor
from stremn.segmentation.sessions import SegmentationSession
from tiny_model import square_clips, tiny_model
from tiny_vos import names_of, square_labels, write_frame, write_labels

EXAMPLES = Path(__file__).parents[1] / "examples"
EXAMPLE = EXAMPLES / "memory_in_your_network.py"


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


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_it_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 40


def test_a_rule_of_ones_own_replaces_the_slot_with_least_of_the_object() -> None:
    rule = runpy.run_path(str(EXAMPLES / "own_rule.py"))["least_object"]
    seen = []

    def watched(state, new, evictable):  # type: ignore[no-untyped-def]
        choice = rule(state, new, evictable)
        if not bool(state.vacant.any()):
            mass = state.evidence[..., 0].masked_fill(~evictable, torch.inf)
            seen.append(bool((choice.replace.argmax(1) == mass.argmin(1)).all()))
        return choice

    clip = square_clips([[0]], frames=7)
    session = SegmentationSession(
        tiny_model(), policy=watched, device="cpu", precision="float32", memory_slots=3, size=64
    )
    for t, frame in enumerate(clip.frames[0].permute(0, 2, 3, 1).numpy()):
        session.step(frame, clip.labels[0, 0].numpy() if t == 0 else None)
    assert seen == [True] * 4


def test_a_backbone_of_ones_own_makes_a_model() -> None:
    backbone = runpy.run_path(str(EXAMPLES / "own_backbone.py"))["mobilenet_backbone"]()
    pyramid = backbone(torch.rand(1, 3, 64, 96))
    maps = (pyramid.stride4, pyramid.stride8, pyramid.stride16)
    assert [tuple(x.shape[1:]) for x in maps] == [(16, 16, 24), (24, 8, 12), (48, 4, 6)]
    config = SegmentationConfig(
        memory_encoder="shared-stem", key=4, value=6, update_key=4, decoder=(4, 4, 4)
    )
    session = SegmentationSession(build_model(config, backbone), device="cpu", size=64)
    mask = np.zeros((64, 96), np.uint8)
    mask[10:30, 10:30] = 3
    result = session.step(np.full((64, 96, 3), 99, np.uint8), mask)
    assert np.array_equal(result.labels, mask)


def test_a_data_set_of_ones_own_is_read_and_scored(tmp_path: Path) -> None:
    for index, name in enumerate(names_of(4)):
        write_frame(tmp_path / "cat.frames" / f"{name}.jpg", index)
        if index != 2:
            write_labels(tmp_path / "cat.masks" / f"{name}.png", square_labels(index, [1, 2]))
    data = runpy.run_path(str(EXAMPLES / "own_data.py"))["read_pairs"](tmp_path)
    (cat,) = data
    assert (cat.name, len(cat), dict(cat.objects)) == ("cat", 4, {1: 0, 2: 0})
    assert [cat.annotated(index) for index in range(4)] == [True, True, False, True]
    model = tiny_model()
    report = evaluate(
        data,
        lambda: SegmentationSession(model, device="cpu", precision="float32", size=64),
        tmp_path / "scores",
        RunDescription("tiny", "evidence", memory_slots=6, size=64, reach=0.5),
    )
    assert not report.failures
    assert report.plain is not None


def test_an_object_from_a_camera_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    rng = np.random.default_rng(0)
    ground = cv2.GaussianBlur(rng.integers(60, 120, (96, 128, 3)).astype(np.uint8), (0, 0), 3)
    for t in range(4):
        frame = cv2.circle(ground.copy(), (40 + 4 * t, 48), 18, (40, 60, 230), -1)
        cv2.imwrite(str(folder / f"{t}.png"), frame)
    follow = runpy.run_path(str(EXAMPLES / "camera.py"))["follow"]
    session = SegmentationSession.from_pretrained("small", size=96, device="cpu")
    centers = [
        np.nonzero(labels == 1)[1].mean() for labels in follow(folder, (22, 30, 36, 36), session)
    ]
    assert np.abs(np.array(centers) - [40, 44, 48, 52]).max() < 3


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


def test_what_comes_back_is_compared_with_and_without(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(30):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 256, (120, 150, 3), np.uint8))
    torch.manual_seed(0)
    config = PREDICTOR_PRESETS["64-pans"]
    names = []
    for unread in (False, True):
        names.append(str(tmp_path / f"{unread}.safetensors"))
        changed = config.model_copy(update={"unread": unread})
        save_predictor(build_predictor(changed).eval(), Path(names[-1]))
    compare = runpy.run_path(str(EXAMPLES / "what_comes_back.py"))["compare"]
    scores = compare(str(tmp_path), *names, str(tmp_path / "out.png"), clips=2)
    assert scores.shape[1:] == (2, 2, 6)
    assert bool((scores[0, 1, :, 0] > scores[0, 0, :, 0] + 3).all())
    assert cv2.imread(str(tmp_path / "out.png")).shape == (2 * 64 * 2, 5 * 64 * 2, 3)


def test_which_digit_returns_is_compared_with_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "prediction" / "mnist"
    folder.mkdir(parents=True)
    digits = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    header = np.array([2051, *digits.shape], ">u4").tobytes()
    (folder / "t10k-images-idx3-ubyte").write_bytes(header + digits.tobytes())
    monkeypatch.setenv("STREMN_DATA", str(tmp_path))
    torch.manual_seed(0)
    model = build_predictor(PREDICTOR_PRESETS["32-recalled"]).eval()
    names = [str(tmp_path / name / "last.safetensors") for name in ("with", "without")]
    for name, unread in zip(names, (False, True), strict=True):
        Path(name).parent.mkdir()
        changed = model.config.model_copy(update={"unread": unread})
        save_predictor(model._with(model.policy, changed), Path(name))
    compare = runpy.run_path(str(EXAMPLES / "which_digit_returns.py"))["compare"]
    read, unread = compare(1, 2, names, str(tmp_path / "out.png"))
    assert (read.name, unread.name) == ("with", "without")
    assert read.values["mse"].shape == (2, 1)
    assert bool((read.values["mse"] != unread.values["mse"]).all())
    assert cv2.imread(str(tmp_path / "out.png")).shape == (2 * 32 * 3, 5 * 32 * 3, 3)
