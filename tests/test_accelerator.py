"""What computes on the CPU computes the same on an accelerator: here, one made of the CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch

from elsewhere import accelerator
from stremn.evaluation.prediction.evaluation import as_predict, score
from stremn.memory.fusion import FusionConfig
from stremn.memory.policies import POLICIES, RandomDrop, Spread
from stremn.prediction.sessions import PredictionSession
from stremn.segmentation.sessions import SegmentationSession
from stremn.training.prediction.data import FrameBatch
from stremn.training.prediction.recipe import HorizonConfig, LossConfig
from stremn.training.prediction.rollout import clip_loss
from stremn.training.prediction.task import TASK
from stremn.training.prediction.validation import Validation
from stremn.training.segmentation.agreement import Watched
from stremn.training.segmentation.imitation import Imitation
from stremn.training.segmentation.rollout import ClipLoss, probe
from stremn.training.segmentation.stakes import stakes
from tiny_model import square_clips, tiny_model
from tiny_predictor import clip, tiny, tiny_of

pytestmark = pytest.mark.skipif(
    torch.__version__ < "2.14", reason="an accelerator made of the CPU needs PyTorch 2.14"
)


def test_it_refuses_what_cuda_refuses():
    with accelerator() as device:
        there = torch.ones(3, 4, device=device)
        assert there.device.type == "cuda"
        assert (there @ torch.ones(4, 2).to(device)).tolist() == [[4.0, 4.0]] * 3
        with pytest.raises(RuntimeError, match="all tensors on one device"):
            there + torch.ones(3, 4)
        with pytest.raises(RuntimeError, match="all tensors on one device"):
            there[there > 0] = torch.ones(12)
        with pytest.raises(TypeError, match="to numpy"):
            there.numpy()
        with pytest.raises(TypeError, match="to numpy"):
            np.asarray(there)
        with pytest.raises(TypeError, match="no float64"):
            there.double()
        with pytest.raises(RuntimeError, match="'cuda' generator"):
            torch.rand(3, device=device, generator=torch.Generator())


def play(device, policy, reach, folder, **changes):
    """All that a session can do: objects come, are corrected and go, it is saved and goes on."""
    batch = square_clips([[0, 0]], frames=8)
    frames = batch.frames[0].permute(0, 2, 3, 1).numpy()
    first, later = batch.labels[0, 0].numpy(), batch.labels[0, 4].numpy()
    model = tiny_model(**changes)
    settings = {"memory_slots": 2, "policy": policy, "size": 64, "reach": reach}
    session = SegmentationSession(model, device=device, precision="float32", **settings)
    results = [session.step(frames[0], first)]
    results += [session.step(frame) for frame in frames[1:4]]
    results.append(session.step(frames[4], np.where(later == 1, 9, 0)))
    session.pin(frame=4, object_id=9)
    results.append(session.add_object(np.where(later == 2, 2, 0)))
    session.remove_object(1)
    session.save(folder / "session.safetensors")
    session = SegmentationSession.load(folder / "session.safetensors", model, device=device)
    return [*results, *(session.step(frame) for frame in frames[5:])]


def check_play(folder, policy, reach=None, **changes):
    expected = play("cpu", policy, reach, folder, **changes)
    with accelerator() as device:
        found = play(device, policy, reach, folder, **changes)
    for ours, theirs in zip(found, expected, strict=True):
        assert_alike(ours, theirs)


def assert_alike(ours, theirs):
    """The same frames in the same slots, and the same result.

    But for rounding: the CPU has fused convolutions of its own, whose sums have another order.
    """
    assert np.count_nonzero(ours.labels != theirs.labels) <= 0.001 * ours.labels.size
    assert ours.memory.nbytes == theirs.memory.nbytes
    for a, b in zip(ours.memory.objects, theirs.memory.objects, strict=True):
        assert (a.id, a.frames, a.pinned) == (b.id, b.frames, b.pinned)
        assert (a.replaced is None) == (b.replaced is None)
        if a.replaced is not None:
            assert (a.replaced.slot, a.replaced.frame) == (b.replaced.slot, b.replaced.frame)
            scores = [np.array(x.replaced.scores, dtype=float) for x in (a, b)]
            np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_session_with_each_rule(tmp_path, policy):
    check_play(tmp_path, policy)


def test_a_session_with_a_reach(tmp_path):
    check_play(tmp_path, "evidence", reach=0.5)


def test_a_session_that_fuses(tmp_path):
    check_play(tmp_path, "learned", fusion=FusionConfig())


def on_both(compute, model, batch):
    """`compute(model, batch)` on the CPU and on the accelerator, each from the same seed."""
    torch.manual_seed(3)
    with torch.no_grad():
        expected = compute(model, batch)
        with accelerator() as device:
            torch.manual_seed(3)
            found = compute(model.to(device), batch.to(torch.device(device)))
    return found, expected


LOSSES = {
    "the paper's": ClipLoss(memory_slots=2),
    "all terms": ClipLoss(memory_slots=2, policy=Spread(), dice=0.5, lovasz=0.5, bootstrap=0.3),
    "random": ClipLoss(memory_slots=2, policy=RandomDrop(seed=None)),
    "growing": ClipLoss(memory_slots=2, policy=POLICIES["append"](0), growth=2),
    "watched": ClipLoss(memory_slots=2, policy=Watched(Spread(), {"spread": Spread()})),
    "imitation": Imitation(memory_slots=3),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_segmentation(name):
    batch = square_clips([[0, -1], [0, 2]], frames=6)
    found, expected = on_both(lambda m, b: LOSSES[name](m, b, 0.5), tiny_model(), batch)
    assert found.loss.device.type == "cuda"
    assert float(found.loss) == float(expected.loss)
    assert found.scalars == expected.scalars


@pytest.mark.parametrize("measure", [probe, stakes])
def test_a_measure_of_the_memory(measure):
    found, expected = on_both(measure, tiny_model(), square_clips([[0], [0]], frames=7))
    assert found == expected


PREDICTORS = {
    "stremn": lambda: tiny(),
    "carried": lambda: tiny(carried=5),
    "moved": lambda: tiny(output="moved", reach=2),
    "moved-by-axis": lambda: tiny(output="moved-by-axis", reach=2),
    "growing": lambda: tiny(policy="growing", growth=8),
    "convlstm": lambda: tiny_of("convlstm"),
    "predrnn": lambda: tiny_of("predrnn"),
}


@pytest.mark.parametrize("name", PREDICTORS)
def test_a_loss_of_prediction(name):
    batch = FrameBatch((255 * clip(t=9)).to(torch.uint8))
    horizon = HorizonConfig(observed=6, future=3, free_from=0.0, full_at=0.0)
    loss = LossConfig(gradient_weight=0.1, gradient_ramp=0.0, future_weight=2.0)
    found, expected = on_both(
        lambda m, b: clip_loss(m, b, 1.0, horizon=horizon, loss=loss), PREDICTORS[name](), batch
    )
    assert found.loss.device.type == "cuda"
    assert found.scalars == expected.scalars


def test_a_session_of_prediction(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (9, 16, 16), dtype=np.uint8)

    def predicted(device):
        model = tiny(carried=5)
        session = PredictionSession(model, device=device)
        for frame in frames[:7]:
            session.observe(frame)
        session.save(tmp_path / "session.safetensors")
        session = PredictionSession.load(tmp_path / "session.safetensors", model, device=device)
        for frame in frames[7:]:
            session.observe(frame)
        return session.predict(4)

    expected = predicted("cpu")
    with accelerator() as device:
        np.testing.assert_array_equal(predicted(device), expected)


RECIPES = Path(__file__).parents[1] / "recipes"
SHORT = ("horizon.observed=6", "horizon.future=2")


class Clips:
    """Clips that are given, each an origin."""

    def __init__(self, clips):
        self.clips = (255 * clips).round().to(torch.uint8)

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        return self.clips[index]

    def origin(self, index):
        return f"clip {index}"

    def origins(self):
        return frozenset(map(self.origin, range(len(self))))


def test_scores_of_prediction(tmp_path):
    model, clips = tiny(), Clips(clip(b=3, t=8))
    plain = score("tiny", as_predict(model), clips, 6, 2)
    with accelerator() as device:
        there = torch.device(device)
        found = score("tiny", as_predict(model.to(there), there), clips, 6, 2)
        recipe = TASK.read(RECIPES / "prediction-digits-32.toml", SHORT)
        scores = Validation(recipe, clips, tmp_path).scores(model)
        assert scores.values["mse"].shape == (3, 2)
    for name, values in plain.values.items():
        np.testing.assert_array_equal(found.values[name], values)
