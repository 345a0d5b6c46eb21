"""Clips made of one given frame, and networks adapted with them."""

import copy
import os
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

import stremn.training.segmentation.adaptation as adaptation
from made_data import ellipse
from stremn.data.clips.colors import ColorRange
from stremn.data.clips.given_frame import (
    GivenFrameClips,
    GivenFrameParameters,
    Wander,
    filled,
)
from stremn.errors import StremnError
from stremn.networks.presets import frozen_parameters
from stremn.networks.pretrained import Pretrained
from stremn.segmentation.sessions import SegmentationSession
from stremn.training.segmentation.adaptation import AdaptedSession, adapt
from tiny_model import tiny_config, tiny_model

HEIGHT, WIDTH = 120, 180
STILL_COLOR = ColorRange(0, 0, 0, 0)
STILL = Wander(travel=0, angle=0, zoom=0, shear=0, tilt=0)


def scene(step: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A red and a green ellipse, ids 7 and 300, over a gray gradient."""
    frame = np.linspace(40, 120, WIDTH).astype(np.uint8)[None, :, None]
    frame = np.ascontiguousarray(np.broadcast_to(frame, (HEIGHT, WIDTH, 3)))
    labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    for number, x, color in ((7, 50, (230, 30, 30)), (300, 125, (30, 230, 30))):
        inside = ellipse(HEIGHT, WIDTH, x + step, 60, 20, 30) > 0
        frame[inside], labels[inside] = color, number
    return frame, labels


def clips(**changes: object) -> GivenFrameClips:
    return GivenFrameClips(*scene(), GivenFrameParameters(**changes))  # type: ignore[arg-type]


def draw(source: GivenFrameClips, seed: int, frames: int = 3, size: int = 96):
    return source.sample(np.random.default_rng(seed), frames, size, 0.0)


@pytest.mark.parametrize("together", [0.0, 1.0])
def test_labels_lie_on_the_objects_of_their_color(together: float) -> None:
    source = clips(together=together, color=STILL_COLOR, own_color=STILL_COLOR, flicker=STILL_COLOR)
    counts = set()
    for seed in range(12):
        clip = draw(source, seed)
        counts.add(clip.given.size)
        assert (clip.given == 0).all()
        for t in range(3):
            picture = clip.frames[t].astype(int)
            strongest = picture.max(0) - picture.min(0) > 120
            labelled = clip.labels[t] > 0
            assert (labelled & strongest).sum() >= 0.85 * labelled.sum()
            for number in range(1, clip.given.size + 1):
                inside = clip.labels[t] == number
                red = picture[0][inside] > picture[1][inside]
                assert red.size == 0 or red.mean() < 0.1 or red.mean() > 0.9  # of one color
    assert counts == {1, 2}


def test_a_clip_depends_on_its_generator_alone() -> None:
    a, b, other = (draw(clips(), seed) for seed in (3, 3, 4))
    assert np.array_equal(a.frames, b.frames)
    assert np.array_equal(a.labels, b.labels)
    assert not np.array_equal(a.frames, other.frames)


def test_objects_move_apart_from_the_background_or_with_it() -> None:
    for together, moved in ((1.0, False), (0.0, True)):
        source = clips(together=together, grows=0.0, bend=(0.0, 0.0), camera=STILL, objects=1)
        changes = [draw(source, seed).labels for seed in range(5)]
        assert all((labels[0] != labels[2]).any() == moved for labels in changes)


def test_what_grows_gets_larger_or_smaller() -> None:
    source = clips(together=1.0, grows=1.0, growth=1.5, camera=STILL, bend=(0, 0), scale=(0.8, 0.8))
    ratios = []
    for seed in range(10):
        labels = draw(source, seed).labels
        ratios.append((labels[2] == 1).sum() / (labels[0] == 1).sum())
    assert min(ratios) < 0.7
    assert max(ratios) > 1.4


def test_the_hole_is_filled_and_the_rest_left_alone() -> None:
    frame, labels = scene()
    ids = (labels > 0).astype(np.uint8)
    background = filled(frame, ids)
    assert (background.max(2).astype(int) - background.min(2) < 30).all()  # no color is left
    far = np.ones_like(ids, dtype=bool)
    far[20:100, 20:160] = False
    assert np.array_equal(background[far], frame[far])


def test_large_frames_are_reduced() -> None:
    frame, labels = np.zeros((960, 1200, 3), np.uint8), np.zeros((960, 1200), np.uint8)
    labels[100:300, 100:300] = 255  # an id like any other here
    source = GivenFrameClips(frame, labels)
    assert source.frame.shape == (480, 600, 3)
    assert source.numbers == [1]


def test_of_more_objects_than_a_clip_can_hold_the_largest_are_followed() -> None:
    labels = np.zeros((300, 300), np.uint16)
    labels[:, :290] = np.arange(1, 291)  # columns; the first ten are made smaller
    labels[1:, :40] = 0
    source = GivenFrameClips(np.zeros((300, 300, 3), np.uint8), labels)
    assert len(source.numbers) == 250
    assert not source.ids[:, :40].any()


def test_nothing_and_next_to_nothing_are_refused() -> None:
    frame, labels = scene()
    with pytest.raises(StremnError, match="nothing to adapt to: the mask of the frame is empty"):
        GivenFrameClips(frame, np.zeros_like(labels))
    dot = np.zeros_like(labels)
    dot[60, 60] = 1
    with pytest.raises(StremnError, match=r"too small to adapt to \(1 pixels"):
        draw(GivenFrameClips(frame, dot), 0)


# ------------------------------------------------------------------------- adapting


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptation, "SIDE", 64)


@pytest.fixture
def start() -> Pretrained:
    return Pretrained(tiny_model(), tiny_config())


def j_of_the_red_one(model: Pretrained) -> float:
    options = {"precision": "float32", "memory_slots": 3, "policy": "oldest", "size": 96}
    session = SegmentationSession(model.model, device="cpu", reach=None, **options)
    frame, labels = scene()
    session.step(frame, np.where(labels == 7, 7, 0))
    scores = []
    for step in (4, 8, 12):
        frame, labels = scene(step)
        found, true = session.step(frame).labels == 7, labels == 7
        scores.append((found & true).sum() / (found | true).sum())
    return float(np.mean(scores))


def test_a_network_learns_its_objects(quick: None, start: Pretrained) -> None:
    frame, labels = scene()
    before = {name: x.clone() for name, x in start.model.state_dict().items()}
    adapted = adapt(start, frame, labels, steps=60, device="cpu")
    assert j_of_the_red_one(adapted) > 2 * j_of_the_red_one(start)
    after = adapted.model.state_dict()
    assert all(torch.equal(x, before[name]) for name, x in start.model.state_dict().items())
    frozen = frozen_parameters(start.model)
    assert frozen
    assert all(torch.equal(after[name], before[name]) for name in frozen)
    assert any(not torch.equal(after[name], x) for name, x in before.items())
    assert not any(p.requires_grad for p in adapted.model.parameters())
    assert not adapted.model.training


def test_adapting_is_repeatable(quick: None, start: Pretrained) -> None:
    frame, labels = scene()
    a, b, c = (
        adapt(start, frame, labels, steps=2, seed=seed, device="cpu").model.state_dict()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


def test_adapting_writes_no_file(
    quick: None, start: Pretrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    adapt(start, *scene(), steps=1, device="cpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_adapting_stops(quick: None, start: Pretrained, number: int) -> None:
    told = []

    def watch(done: int, steps: int) -> None:
        told.append((done, steps))
        if done == 2:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        adapt(start, *scene(), steps=9, device="cpu", watch=watch)
    assert told == [(0, 9), (0, 9), (1, 9), (2, 9)]  # the first to see that it fits into memory


def test_the_watcher_is_told_of_the_end(quick: None, start: Pretrained) -> None:
    told = []
    adapt(start, *scene(), steps=2, device="cpu", watch=lambda *so_far: told.append(so_far))
    assert told == [(0, 2), (0, 2), (1, 2), (2, 2)]


def test_a_loss_that_is_no_number_is_said_in_words(
    quick: None, start: Pretrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.no_grad():
        start.model.decoder.logit.bias.fill_(torch.nan)
    with pytest.raises(StremnError, match="Adapting failed at step 0 of 2: the loss is not"):
        adapt(start, *scene(), steps=2, device="cpu")


def test_what_goes_wrong_is_not_said_in_words_of_a_training(
    quick: None, start: Pretrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate")

    def broken(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * torch.nan

    with monkeypatch.context() as patch:
        patch.setattr("stremn.training.optimization.Run.rehearse", full)
        with pytest.raises(StremnError, match="it does not fit into the machine's memory") as told:
            adapt(start, *scene(), steps=2, device="cpu")
    assert "train." not in str(told.value)
    model = copy.deepcopy(start.model)
    clip_loss = adaptation.ClipLoss

    def poisoned(**options: object) -> object:
        inner = clip_loss(**options)  # type: ignore[arg-type]

        def loss(network: torch.nn.Module, batch: object, progress: float) -> object:
            report = inner(network, batch, progress)  # type: ignore[arg-type]
            report.loss.register_hook(broken)
            return report

        return loss

    monkeypatch.setattr(adaptation, "ClipLoss", poisoned)
    with pytest.raises(StremnError, match="Adapting failed: the numbers do not stay finite"):
        adapt(Pretrained(model, start.config), *scene(), steps=2, device="cpu")


def test_masks_that_do_not_fit_are_refused(start: Pretrained) -> None:
    frame, labels = scene()
    with pytest.raises(StremnError, match="The mask is 90x120 pixels, the frame 180x120"):
        adapt(start, frame, labels[:, ::2])
    with pytest.raises(StremnError, match="holds no object"):
        adapt(start, frame, np.zeros_like(labels))
    with pytest.raises(StremnError, match="device 'abacus' cannot be used"):
        adapt(start, frame, labels, device="abacus")
    with pytest.raises(StremnError, match="steps must be at least 1, got 0"):
        adapt(start, frame, labels, steps=0)


def test_a_session_adapts_once_to_the_first_masks(
    quick: None, start: Pretrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def open_session(model):
        seen.append(model)
        options = {"precision": "float32", "memory_slots": 2, "policy": "oldest", "size": 96}
        return SegmentationSession(model, device="cpu", reach=None, **options)

    session = AdaptedSession(start, open_session, steps=1, device="cpu")
    frame, labels = scene()
    with pytest.raises(StremnError, match="nothing to adapt to: give a mask"):
        session.step(frame)
    result = session.step(frame, labels)
    assert np.array_equal(result.labels, labels)
    session.step(scene(4)[0])
    assert len(seen) == 1
    assert seen[0] is not start.model
