"""Roll-out of training clips, their loss, and the probe."""

import math

import pytest
import torch

from stremn.errors import StremnError
from stremn.memory.choices import Choice
from stremn.memory.policies import Learned, Oldest
from stremn.memory.state import NEVER
from stremn.networks.model import STReMN
from stremn.segmentation.aggregation import one_hot
from stremn.segmentation.tracks import Track
from stremn.training.segmentation.losses import cross_entropy
from stremn.training.segmentation.rollout import (
    ClipLoss,
    ClipRollout,
    last_frame_j,
    memory_scalars,
    probe,
    rollout,
)
from tiny_model import square_clips, tiny_model


def test_a_rollout_is_segment_then_memorize_frame_by_frame(model: STReMN) -> None:
    """Section 4.1: against the steps written out for a single object."""
    batch, policy = square_clips([[0]], frames=5), Oldest()
    with torch.no_grad():
        clip = rollout(model, batch, memory_slots=3, policy=policy)
        one = torch.tensor([0])
        track = Track.empty(model, one, one + 1, 3, (64, 64))
        current = one_hot(batch.labels[:, 0].long(), 1)
        for t in range(5):
            query = model.encode_query(batch.frames[:, t].float() / 255)
            if t:
                logp = track.recall(model, query, 1, 1)
                torch.testing.assert_close(
                    clip.log_probabilities[t - 1], logp, rtol=1e-4, atol=1e-4
                )
                current = logp.exp()
            track, _ = track.memorize(model, query, current, frame=t, policy=policy, pin=t == 0)
    assert len(clip.log_probabilities) == len(clip.targets) == 4
    assert clip.track.state.written_at.tolist() == [[0, 3, 2]]  # the last frame is not written


def test_true_masks_are_read_only_where_they_are_given(model: STReMN) -> None:
    """Decision: the memory gets the model's own soft masks, never a later true one."""
    batch = square_clips([[0, 2]], frames=5)
    changed = batch.labels.clone()
    changed[:, [1, 3, 4]] = 0
    with torch.no_grad():
        first = rollout(model, batch, memory_slots=3, policy=Oldest())
        second = rollout(
            model, type(batch)(batch.frames, changed, batch.given), memory_slots=3, policy=Oldest()
        )
    for one, other in zip(first.log_probabilities, second.log_probabilities, strict=True):
        assert torch.equal(one, other)


def test_frames_to_come_change_nothing(model: STReMN) -> None:
    """The model is online: frame t's result depends on frames up to t alone."""
    batch = square_clips([[0, 0]], frames=6)
    short = type(batch)(batch.frames[:, :4], batch.labels[:, :4], batch.given)
    with torch.no_grad():
        long = rollout(model, batch, memory_slots=3, policy=Oldest())
        cut = rollout(model, short, memory_slots=3, policy=Oldest())
    for one, other in zip(cut.log_probabilities, long.log_probabilities, strict=False):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_without_gradients_frames_are_encoded_one_by_one_to_the_same_result(
    model: STReMN, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = square_clips([[0], [0], [0]], frames=4)
    expected = rollout(model, batch, memory_slots=3, policy=Oldest())
    encoded: list[int] = []
    encode = model.encode_query
    monkeypatch.setattr(model, "encode_query", lambda x: encoded.append(len(x)) or encode(x))
    with torch.no_grad():
        found = rollout(model, batch, memory_slots=3, policy=Oldest())
    assert encoded == [3, 3, 3, 3]
    for one, other in zip(found.log_probabilities, expected.log_probabilities, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_objects_enter_when_they_are_given(model: STReMN) -> None:
    batch = square_clips([[0, 3], [0, -1]], frames=6)
    with torch.no_grad():
        clip = rollout(model, batch, memory_slots=4, policy=Oldest())
    assert clip.track.video.tolist() == [0, 1, 0]
    assert clip.track.label.tolist() == [1, 1, 2]
    assert clip.track.state.written_at[2].tolist() == [3, 4, -1, -1]
    assert clip.track.state.pinned[:, 0].all()
    for t, (logp, target) in enumerate(zip(clip.log_probabilities, clip.targets, strict=True), 1):
        share = logp.exp()[:, 2]
        assert (float(share[0].max()) == 0) == (t <= 3)  # segmented from the frame after
        assert float(share[1].max()) == 0  # padding is no object
        assert bool((target[0] == 2).any()) == (t > 3)


def test_a_clip_without_an_object_at_the_start_is_refused(model: STReMN) -> None:
    batch = square_clips([[0], [1]], frames=3)
    with pytest.raises(StremnError, match=r"given at its first frame; `given` is \[\[0\], \[1\]\]"):
        rollout(model, batch, memory_slots=2, policy=Oldest())


def test_clips_of_a_batch_do_not_see_each_other(model: STReMN) -> None:
    batch = square_clips([[0, 1], [0, 0]], frames=5)
    with torch.no_grad():
        both = rollout(model, batch, memory_slots=3, policy=Learned().eval())
        for i in range(2):
            one = type(batch)(*(x[i : i + 1] for x in (batch.frames, batch.labels, batch.given)))
            alone = rollout(model, one, memory_slots=3, policy=Learned().eval())
            for ours, theirs in zip(both.log_probabilities, alone.log_probabilities, strict=True):
                torch.testing.assert_close(ours[i : i + 1], theirs, rtol=1e-3, atol=1e-3)


# ------------------------------------------------------------------------------------- loss


def test_the_plain_loss_is_the_mean_cross_entropy_of_all_frames_but_the_first(
    model: STReMN,
) -> None:
    batch = square_clips([[0, 1]], frames=4)
    report = ClipLoss(memory_slots=2, policy=Oldest())(model, batch, 0.5)
    with torch.no_grad():
        clip = rollout(model, batch, memory_slots=2, policy=Oldest())
        frames = zip(clip.log_probabilities, clip.targets, strict=True)
        expected = torch.stack([cross_entropy(p, y) for p, y in frames]).mean()
    torch.testing.assert_close(report.loss.detach(), expected, rtol=1e-5, atol=1e-6)
    assert report.scalars["cross_entropy"] == pytest.approx(float(expected), rel=1e-5)
    assert "dice" not in report.scalars


def test_overlap_and_the_hardest_pixels_add_to_the_loss(model: STReMN) -> None:
    batch = square_clips([[0]], frames=3)
    with torch.no_grad():
        plain = ClipLoss(memory_slots=2, policy=Oldest())(model, batch, 1.0)
        dice = ClipLoss(memory_slots=2, policy=Oldest(), dice=2.0)(model, batch, 1.0)
        lovasz = ClipLoss(memory_slots=2, policy=Oldest(), lovasz=3.0)(model, batch, 1.0)
        hard = ClipLoss(memory_slots=2, policy=Oldest(), bootstrap=0.2)(model, batch, 1.0)
        early = ClipLoss(memory_slots=2, policy=Oldest(), bootstrap=0.2)(model, batch, 0.0)
    assert float(dice.loss) == pytest.approx(float(plain.loss) + 2 * dice.scalars["dice"], rel=1e-5)
    assert lovasz.scalars["lovasz"] > 0
    assert float(lovasz.loss) == pytest.approx(
        float(plain.loss) + 3 * lovasz.scalars["lovasz"], rel=1e-5
    )
    assert float(hard.loss) > float(plain.loss)
    assert float(early.loss) == pytest.approx(float(plain.loss), rel=1e-6)


def test_every_part_of_the_model_learns_when_the_memory_overflows() -> None:
    model = tiny_model().train()
    ClipLoss(memory_slots=3)(model, square_clips([[0, 0]], frames=6), 0.0).loss.backward()
    silent = [
        name
        for name, weight in model.named_parameters()
        if (weight.grad is None or not weight.grad.any()) and not name.startswith("policies.")
    ]
    # A zeroed second convolution of a residual block gives its first no gradient at the start.
    assert all(".conv1." in name for name in silent), silent
    assert model.update_key.conv.weight.grad is not None


def test_with_one_slot_training_is_finite() -> None:
    model = tiny_model().train()
    ClipLoss(memory_slots=1)(model, square_clips([[0]], frames=4), 0.0).loss.backward()
    for weight in model.parameters():
        assert weight.grad is None or weight.grad.isfinite().all()


def test_evictions_and_entropy_are_those_of_contested_writes(model: STReMN) -> None:
    nan = math.nan

    def choice(replace: list[float], scores: list[float]) -> Choice:
        return Choice(torch.tensor([replace]).float(), torch.tensor([scores]))

    batch = square_clips([[0]], frames=3)
    with torch.no_grad():
        track = rollout(model, batch, memory_slots=3, policy=Oldest()).track
    choices = [
        choice([0, 1, 0], [nan, 0.0, nan]),  # an empty slot: no choice
        choice([0, 1, 0], [nan, 0.3, 0.3]),  # even: entropy 1
        choice([0, 0, 1], [nan, 0.0, 50.0]),  # sure: entropy 0
        choice([0, 0, 0], [nan, 0.0, 1.0]),  # nothing stored
    ]
    scalars = memory_scalars(ClipRollout([], [], choices, track))
    assert scalars["evictions"] == 2
    assert scalars["policy_entropy"] == pytest.approx(0.5, abs=1e-6)


def test_evictions_of_a_rollout_are_counted(model: STReMN) -> None:
    with torch.no_grad():
        clip = rollout(model, square_clips([[0, 0]], frames=7), memory_slots=3, policy=Oldest())
    # Frames 1 to 5 are written after the first; 1 and 2 find empty slots.
    assert memory_scalars(clip)["evictions"] == 3
    with torch.no_grad():
        clip = rollout(model, square_clips([[0, 0]], frames=7), memory_slots=6, policy=Oldest())
    assert memory_scalars(clip) == {"evictions": 0, "policy_entropy": 0.0}


def test_j_of_the_last_frame_is_intersection_over_union(model: STReMN) -> None:
    batch = square_clips([[0, 0]], frames=2)
    target = torch.zeros(1, 4, 4, dtype=torch.int64)
    target[0, 0, :] = 1  # 4 pixels
    target[0, 3, 3] = 255  # no opinion
    logp = torch.full((1, 3, 4, 4), -9.0)
    logp[:, 0] = -1.0
    logp[0, 1, :2, :] = 0.0  # 8 pixels, 4 of them right
    logp[0, 1, 3, 3] = 0.0  # where there is no opinion
    with torch.no_grad():
        track = rollout(model, batch, memory_slots=2, policy=Oldest()).track
    # Object 1: 4 / 8. Object 2 is neither there nor seen: 1.
    assert last_frame_j(ClipRollout([logp], [target], [], track), batch) == pytest.approx(0.75)
    # One that is given in the last frame is not segmented there, so it has no score.
    late = type(batch)(batch.frames, batch.labels, torch.tensor([[0, 1]]))
    assert last_frame_j(ClipRollout([logp], [target], [], track), late) == pytest.approx(0.5)


def test_the_probe_tells_a_memory_that_is_read_from_one_that_is_not(model: STReMN) -> None:
    batch = square_clips([[0], [0], [0]], frames=4)
    scores = probe(model, batch, memory_slots=3)
    assert set(scores) == {"probe_right", "probe_wrong", "probe_empty"}
    assert all(0 <= score <= 1 for score in scores.values())

    class Deaf(torch.nn.Module):
        """A decoder that sees the frame alone, by its own value."""

        def __init__(self, decoder: torch.nn.Module, width: int) -> None:
            super().__init__()
            self.decoder, self.width = decoder, width
            self.skip_features = decoder.skip_features

        def forward(self, y: torch.Tensor, skips: object) -> torch.Tensor:
            return self.decoder(y * (torch.arange(y.shape[1]) >= self.width)[:, None, None], skips)

    model.hint = None  # its summary is memory too
    model.decoder = Deaf(model.decoder, model.widths["value"])  # type: ignore[assignment]
    deaf = probe(model, batch, memory_slots=3)
    assert deaf["probe_right"] == deaf["probe_wrong"] == deaf["probe_empty"]


def test_the_probe_looks_for_an_object_that_is_given_at_the_start(model: STReMN) -> None:
    early = square_clips([[0, 2], [0, 2]], frames=4)
    numbers = torch.tensor([0, 2, 1], dtype=torch.uint8)  # the same clips, ids 1 and 2 exchanged
    late = type(early)(early.frames, numbers[early.labels.long()], early.given.flip(1))
    assert late.given[:, 0].tolist() == [2, 2]
    assert probe(model, late, memory_slots=3) == probe(model, early, memory_slots=3)


def test_a_growing_memory_can_be_trained(model: STReMN) -> None:
    from stremn.memory.policies import Append

    with torch.no_grad():
        clip = rollout(
            model, square_clips([[0]], frames=8), memory_slots=2, policy=Append(2), growth=2
        )
    held = clip.track.state.written_at[0]
    assert sorted(held[held != NEVER].tolist()) == [0, 2, 4, 6]
