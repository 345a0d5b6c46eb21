"""Streaming: equal to training's roll-out, constant in memory, saved and restored, any objects."""

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stremn.benchmarks.workload import made_frame, made_labels, ready_model
from stremn.core.hardware import pick_device, pick_precision
from stremn.data.clips.clip import ClipBatch
from stremn.errors import StremnError
from stremn.memory.policies import POLICIES, Append, Oldest, build_policy
from stremn.networks.model import STReMN
from stremn.networks.pretrained import Pretrained
from stremn.networks.windows import Window, windows_that_pay
from stremn.segmentation.reports import StepResult
from stremn.segmentation.sessions import SegmentationSession
from stremn.training.segmentation.rollout import rollout
from tiny_model import square_clips, tiny_config, tiny_model

ALL_RULES = sorted(POLICIES)


def open_session(model: STReMN, **options) -> SegmentationSession:  # type: ignore[no-untyped-def]
    """A session that works at the frames' own size, in float32."""
    settings = {"device": "cpu", "precision": "float32", "size": 64, "memory_slots": 3}
    settings |= {"policy": "learned", "reach": None}
    return SegmentationSession(model, **(settings | options))


def frames_of(batch: ClipBatch, clip: int = 0) -> list[np.ndarray]:
    """The frames of a clip as a user gives them: "height width 3" uint8."""
    return [np.ascontiguousarray(x.numpy().transpose(1, 2, 0)) for x in batch.frames[clip]]


def masks_of(batch: ClipBatch, clip: int = 0) -> list[np.ndarray | None]:
    """For each frame the label map of the objects given in it, if any."""
    masks: list[np.ndarray | None] = []
    for t in range(batch.frames.shape[1]):
        labels = batch.labels[clip, t].numpy()
        ids = [i for i, when in enumerate(batch.given[clip].tolist(), 1) if when == t]
        masks.append(np.where(np.isin(labels, ids), labels, 0).astype(np.uint8) if ids else None)
    return masks


def run(session: SegmentationSession, batch: ClipBatch, clip: int = 0) -> list[StepResult]:
    """All results of a clip."""
    pairs = zip(frames_of(batch, clip), masks_of(batch, clip), strict=True)
    return [session.step(frame, mask) for frame, mask in pairs]


def square(*objects: tuple[int, int, int, int, int], size: tuple[int, int] = (64, 64)):  # type: ignore[no-untyped-def]
    """A label map of rectangles (id, top, left, height, width)."""
    labels = np.zeros(size, np.int32)
    for name, top, left, height, width in objects:
        labels[top : top + height, left : left + width] = name
    return labels


def noise(count: int, size: tuple[int, int] = (64, 64), seed: int = 0) -> list[np.ndarray]:
    """Frames of noise."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 255, (*size, 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize(
    "view", [np.s_[..., ::-1], np.s_[:, ::-1], np.s_[::-1]], ids=["channels", "mirrored", "upside"]
)
def test_reversed_views_of_frames_are_frames(view: tuple[slice, ...]) -> None:
    model, frame = tiny_model(), noise(1, (64, 64))[0]

    def found(frame: np.ndarray) -> np.ndarray:
        session = open_session(model)
        session.step(frame, square((1, 8, 8, 20, 20)))
        return session.step(frame).probabilities

    np.testing.assert_array_equal(found(frame[view]), found(frame[view].copy()))


def test_read_only_frames_and_masks_are_taken_without_a_warning() -> None:
    frame, mask = noise(1)[0], square((1, 8, 8, 20, 20))
    frame.flags.writeable = mask.flags.writeable = False
    session = open_session(tiny_model())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = session.step(frame, mask)
    assert np.array_equal(result.labels, mask)


@pytest.mark.parametrize("name", ["probabilities", "layer_probabilities", "labels"])
def test_what_becomes_of_a_result_does_not_change_the_session(model: STReMN, name: str) -> None:
    frames, found = noise(3), []
    for changed in (False, True):
        session = open_session(model, reach=0.5)
        session.step(frames[0], square((1, 0, 0, 20, 20)))
        result = session.step(frames[1])
        if changed:
            getattr(result, name)[:] = 0
        found.append(session.add_object(square((2, 40, 40, 20, 20))).probabilities)
        found.append(session.step(frames[2]).probabilities)
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[3])


# ------------------------------------------------------------------- where it looks


def test_many_small_objects_are_memorized_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far from an object the frame is encoded once for all; what is found stays what it was."""
    asked = []

    def counted(*arguments) -> list[Window] | None:  # type: ignore[no-untyped-def]
        asked.append(windows_that_pay(*arguments) if windows else None)
        return asked[-1]

    monkeypatch.setattr("stremn.segmentation.sessions.windows_that_pay", counted)
    monkeypatch.setattr("stremn.networks.windows.MEMORY_CONTEXT", 3)  # small frames, small windows
    model, found = ready_model("small"), {}
    for windows in (True, False):
        session = SegmentationSession(
            model,
            precision="float32",
            device="cpu",
            size=240,
            memory_slots=2,
            policy="learned",
            reach=0.5,
        )
        session.step(made_frame(240, 426), made_labels(240, 426, 5))
        found[windows] = [session.step(made_frame(240, 426, 4 * i)).labels for i in range(1, 5)]
    assert all(asked[:4])
    assert not any(asked[4:])
    for one, other in zip(found[True], found[False], strict=True):
        assert set(np.unique(one)) == {0, 1, 2, 3, 4, 5}
        assert np.mean(one != other) < 0.002


def test_hints_are_those_of_each_video_alone() -> None:
    model, batch = tiny_model(summary=True), square_clips([[0, 0], [0, -1]], frames=3)
    with torch.no_grad():
        both = rollout(model, batch, memory_slots=3, policy=Oldest()).track
        query = model.encode_query(batch.frames[:, 2].float() / 255)
        together = model.hints(both.state, query, both.video)
        assert together is not None
        for video in (0, 1):
            own = both.video == video
            alone = model.hints(
                both.state.select(own.nonzero()[:, 0]),
                query.take(torch.tensor([video])),
                torch.zeros(int(own.sum()), dtype=torch.int64),
            )
            torch.testing.assert_close(together[own], alone, rtol=1e-4, atol=1e-5)
    assert together[both.video == 1][:, 1].abs().max() == 0  # no rivals


def test_a_result_prints_on_one_line(model: STReMN) -> None:
    result = open_session(model).step(noise(1)[0], square((7, 10, 10, 30, 30)))
    assert repr(result) == "StepResult(frame=0, labels=64x64, ids=(7,))"


def test_a_wide_reach_is_no_reach(model: STReMN) -> None:
    batch = square_clips([[0, 1]], frames=6)
    wide = run(open_session(model, reach=50.0), batch)
    everywhere = run(open_session(model, reach=None), batch)
    endless = open_session(model, reach=math.inf)
    assert endless.reach is None
    for a, b in zip(wide, everywhere, strict=True):
        assert np.array_equal(a.labels, b.labels)
        np.testing.assert_allclose(a.layer_probabilities, b.layer_probabilities, atol=1e-4)


def test_an_object_is_found_in_its_window_alone(model: STReMN) -> None:
    frames, mask = noise(2, (64, 160)), square((1, 8, 8, 10, 10), size=(64, 160))
    session = open_session(model, reach=0.5)
    session.step(frames[0], mask)
    with torch.no_grad():
        model.decoder.logit.bias.fill_(99)  # type: ignore[union-attr]
    result = session.step(frames[1])  # everything decoded is object
    assert (result.labels[:, :96] == 1).all()  # 18 + 5 + 4 positions, up to the next two
    assert (result.labels[:, 98:] == 0).all()


# ------------------------------------------------------------------- as in training


@pytest.mark.parametrize("name", ["learned", "oldest", "random-select", "append", "ucb"])
@pytest.mark.parametrize("given", [[0], [0, 2], [0, 0, 3], [2, 0]])
def test_streaming_is_the_rollout_frame_by_frame(
    model: STReMN, name: str, given: list[int]
) -> None:
    batch, slots = square_clips([given], frames=7), 3
    policy = model.policies[name] if name in model.policies else build_policy(name, seed=4)
    growth = 8 if name == "append" else 0
    with torch.no_grad():
        clip = rollout(model, batch, memory_slots=slots, policy=policy, growth=growth)
    session = open_session(model, memory_slots=slots, policy=name, seed=4)
    results = run(session, batch)
    for t, logp in enumerate(clip.log_probabilities, start=1):
        result, expected = results[t], logp.exp()[0].numpy()
        fresh = [i for i, when in enumerate(given, 1) if when == t]
        truth = np.isin(batch.labels[0, t].numpy(), fresh)
        for i, found in zip(result.ids, result.probabilities, strict=True):
            own = batch.labels[0, t].numpy() == i
            there = own if i in fresh else np.where(truth, 0, expected[i])
            np.testing.assert_allclose(found, there, atol=2e-4)
    entries = {int(label): row for row, label in enumerate(clip.track.label)}
    for held in results[-2].memory.objects:  # a roll-out does not write the last frame
        ours = [-1 if t is None else t for t in held.frames]
        theirs = clip.track.state.written_at[entries[held.id]].tolist()
        assert [t for t in ours if t >= 0] == [t for t in theirs if t >= 0]


# ---------------------------------------------------------------- constant in memory


@pytest.mark.parametrize("name", [name for name in ALL_RULES if name != "append"])
def test_memory_takes_the_same_bytes_however_long_the_video(model: STReMN, name: str) -> None:
    session = open_session(model, policy=name)
    mask = square((1, 4, 4, 20, 20))
    sizes = {
        session.step(frame, mask if t == 0 else None).memory.nbytes
        for t, frame in enumerate(noise(12))
    }
    assert sizes == {session.memory_bytes}


def test_stms_memory_grows_with_the_video_and_so_does_the_rule_as_an_object(
    model: STReMN,
) -> None:
    for policy in ("append", Append()):
        session = open_session(model, policy=policy)
        sizes = [
            session.step(frame, square((1, 4, 4, 20, 20)) if t == 0 else None).memory.nbytes
            for t, frame in enumerate(noise(14))
        ]
        assert sizes[-1] > sizes[0]


def test_memory_is_that_of_the_objects(model: STReMN) -> None:
    session, frame = open_session(model), noise(1)[0]
    assert session.memory_bytes == 0
    one = session.step(frame, square((1, 0, 0, 9, 9))).memory.nbytes
    assert session.step(frame, square((2, 20, 0, 9, 9))).memory.nbytes == 2 * one
    session.remove_object(1)
    assert session.memory_bytes == one


@pytest.mark.parametrize("slots", [1, 2, 32])
def test_any_number_of_slots_runs(model: STReMN, slots: int) -> None:
    session = open_session(model, memory_slots=slots)
    for t, frame in enumerate(noise(4)):
        result = session.step(frame, square((1, 4, 4, 20, 20)) if t == 0 else None)
    assert len(result.memory.objects[0].frames) == slots
    assert np.isfinite(result.probabilities).all()


# --------------------------------------------------------------- what is reported


def test_the_report_says_what_was_replaced(model: STReMN) -> None:
    session, held = open_session(model, policy="learned"), [None] * 3
    for t, frame in enumerate(noise(10)):
        result = session.step(frame, square((5, 4, 4, 20, 20)) if t == 0 else None)
        (memory,) = result.memory.objects
        assert memory.id == 5
        assert memory.replaced is not None
        assert memory.replaced.frame == held[memory.replaced.slot]
        held[memory.replaced.slot] = t  # type: ignore[call-overload]
        assert list(memory.frames) == held
        assert memory.pinned == (True, False, False)
        if t >= 3:
            scores = memory.replaced.scores
            assert scores[0] is None
            assert max(range(1, 3), key=lambda i: scores[i] or -9) == memory.replaced.slot
    json.dumps(result.memory.to_json())
    assert result.memory.to_json()["objects"]["5"]["slots"] == held


def test_probabilities_and_labels_agree(model: STReMN) -> None:
    session = open_session(model)
    mask = square((3, 4, 4, 20, 20), (9, 40, 30, 20, 20))
    for t, frame in enumerate(noise(4)):
        result = session.step(frame, mask if t == 0 else None)
    assert result.ids == (3, 9)
    assert result.probabilities.shape == (2, 64, 64)
    background = 1 - result.probabilities.sum(0)
    layers = np.concatenate([background[None], result.probabilities])
    best = np.array([0, 3, 9])[layers.argmax(0)]
    sure = np.sort(layers, 0)[-1] - np.sort(layers, 0)[-2] > 1e-5
    assert (best == result.labels)[sure].all()


def test_the_given_frame_shows_the_given_mask(model: STReMN) -> None:
    mask = square((3, 4, 4, 20, 20), (9, 40, 30, 20, 20))
    assert np.array_equal(open_session(model).step(noise(1)[0], mask).labels, mask)


# ------------------------------------------------------------------------- any size


@pytest.mark.parametrize("size", [(64, 64), (50, 90), (301, 77), (17, 23), (1, 5)])
def test_frames_of_any_size_come_back_at_that_size(model: STReMN, size: tuple[int, int]) -> None:
    session = open_session(model)
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 2 + 1, : size[1] // 2 + 1] = 1
    for t, frame in enumerate(noise(3, size)):
        result = session.step(frame, mask if t == 0 else None)
        assert result.labels.shape == size
        assert result.probabilities.shape == (1, *size)


def test_a_4k_frame_works(model: STReMN) -> None:
    session, size = open_session(model, size=480), (2160, 3840)
    mask = np.zeros(size, np.uint8)
    mask[500:1500, 1000:2500] = 1
    frame = np.zeros((*size, 3), np.uint8)
    first = session.step(frame, mask)
    assert (first.labels == mask).mean() > 0.999  # resized in and back out
    assert session.step(frame).labels.shape == size


# ---------------------------------------------------------------------- any objects


def test_ids_are_kept_as_given(model: STReMN) -> None:
    session, frames = open_session(model), noise(3)
    result = session.step(frames[0], square((7, 0, 0, 20, 20), (200, 30, 0, 20, 20)))
    assert result.ids == (7, 200)
    assert result.labels.dtype == np.uint8
    result = session.step(frames[1], square((40_000, 0, 40, 20, 20)))
    assert result.ids == (7, 200, 40_000)
    assert result.labels.dtype == np.uint16
    assert (result.labels[:20, 40:60] == 40_000).all()
    result = session.step(frames[2])
    assert set(np.unique(result.labels)) <= {0, 7, 200, 40_000}
    assert len(result.probabilities) == 3


def test_a_late_object_starts_its_own_memory(model: STReMN) -> None:
    session, frames = open_session(model), noise(5)
    session.step(frames[0], square((1, 0, 0, 20, 20)))
    session.step(frames[1])
    result = session.step(frames[2], square((2, 30, 30, 20, 20)))
    assert [o.frames for o in result.memory.objects] == [(0, 1, 2), (2, None, None)]
    assert (result.labels[30:50, 30:50] == 2).all()
    result = session.step(frames[3])
    assert result.memory.objects[1].frames == (2, 3, None)


def test_an_object_added_between_frames_is_as_one_given_with_the_frame(model: STReMN) -> None:
    frames, first, second = noise(4), square((1, 0, 0, 20, 20)), square((2, 30, 30, 20, 20))
    together, later = open_session(model), open_session(model)
    together.step(frames[0], first + second)
    later.step(frames[0], first)
    added = later.add_object(second)
    assert added.ids == (1, 2)
    assert (added.labels[30:50, 30:50] == 2).all()
    for frame in frames[1:]:
        one, other = together.step(frame), later.step(frame)
    assert [o.frames for o in one.memory.objects] == [o.frames for o in other.memory.objects]
    # Object 1 was memorized before it was known that object 2 is another: nearly, not quite.
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=0.3)


def test_an_object_that_is_removed_leaves_the_others_as_they_are(model: STReMN) -> None:
    session, frames = open_session(model), noise(5)
    mask = square((3, 0, 0, 20, 20), (5, 25, 0, 20, 20), (8, 0, 40, 20, 20))
    session.step(frames[0], mask)
    before = session.step(frames[1])
    session.remove_object(5)
    assert session.ids == (3, 8)
    after = session.step(frames[2])
    assert after.ids == (3, 8)
    assert [o.id for o in after.memory.objects] == [3, 8]
    assert after.memory.objects[1].frames[:2] == before.memory.objects[2].frames[:2]
    assert 5 not in after.labels
    again = session.step(frames[3], square((5, 25, 0, 20, 20)))
    assert again.ids == (3, 8, 5)
    assert again.memory.objects[2].frames == (3, None, None)


def test_a_removed_objects_place_goes_to_the_background(model: STReMN) -> None:
    session, mask = open_session(model), square((3, 0, 0, 20, 20), (5, 25, 0, 20, 20))
    session.step(noise(1)[0], mask)
    session.remove_object(3)
    shown = session.add_object(square((6, 0, 40, 9, 9)))
    assert set(np.unique(shown.labels)) == {0, 5, 6}
    assert (shown.labels[:20, :20] == 0).all()


@pytest.mark.parametrize("reach", [None, 0.5])
def test_the_only_object_can_be_drawn_again_on_the_same_frame(
    model: STReMN, reach: float | None
) -> None:
    session, frames = open_session(model, reach=reach), noise(3)
    session.step(frames[0], square((3, 0, 0, 20, 20)))
    session.step(frames[1])
    session.remove_object(3)
    again = session.add_object(square((4, 30, 30, 20, 20)))
    assert (again.frame, again.ids) == (1, (4,))
    assert np.array_equal(again.labels == 4, square((4, 30, 30, 20, 20)) == 4)
    assert again.memory.objects[0].frames[0] == 1
    assert session.step(frames[2]).ids == (4,)


@pytest.mark.parametrize("reach", [None, 0.5])
def test_after_all_objects_are_removed_all_is_background_until_the_next_mask(
    model: STReMN, reach: float | None, tmp_path: Path
) -> None:
    session, frames = open_session(model, reach=reach), noise(5)
    session.step(frames[0], square((3, 0, 0, 20, 20)))
    session.remove_object(3)
    assert session.memory_bytes == 0
    bare = session.step(frames[1])
    assert (bare.frame, bare.ids, bare.memory.objects) == (1, (), ())
    assert not bare.labels.any()
    session.save(tmp_path / "bare.safetensors")
    session = SegmentationSession.load(tmp_path / "bare.safetensors", model, device="cpu")
    assert not session.step(frames[2]).labels.any()
    assert session.step(frames[3], square((4, 0, 0, 20, 20))).ids == (4,)
    assert session.step(frames[4]).ids == (4,)


def test_a_correction_is_shown_and_kept(model: STReMN) -> None:
    session, frames = open_session(model, policy="newest"), noise(9)
    session.step(frames[0], square((1, 0, 0, 20, 20), (2, 40, 40, 20, 20)))
    before = session.step(frames[1])
    right = square((1, 30, 0, 20, 20))
    result = session.step(frames[2], right)
    assert result.ids == (1, 2)
    assert np.array_equal(result.labels == 1, right == 1)
    assert result.probabilities[0][right == 0].max() == 0  # nowhere but where the mask says
    np.testing.assert_allclose(result.layer_probabilities.sum(0), 1, atol=1e-5)
    assert before.probabilities[0][right == 0].max() > 0.1
    assert result.memory.objects[0].frames == (0, 1, 2)
    assert result.memory.objects[0].pinned == (True, False, True)
    assert result.memory.objects[1].pinned == (True, False, False)
    for frame in frames[3:]:
        result = session.step(frame)
    assert result.memory.objects[0].frames == (0, 8, 2)
    assert result.memory.objects[1].frames == (0, 1, 8)


@pytest.mark.parametrize("name", ALL_RULES)
def test_a_correction_is_remembered_under_every_rule(model: STReMN, name: str) -> None:
    """Even by rules that may decline to store a template."""
    session = open_session(model, policy=name, memory_slots=4)
    for t, frame in enumerate(noise(30)):
        mask = square((1, t, 0, 20, 20)) if t in (0, 25) else None
        result = session.step(frame, mask)
    frames, pinned = result.memory.objects[0].frames, result.memory.objects[0].pinned
    assert 25 in frames
    assert pinned[frames.index(25)]


def test_a_correction_of_a_frame_replaces_what_the_frame_left_in_memory(model: STReMN) -> None:
    session, frames = open_session(model, memory_slots=4), noise(3)
    session.step(frames[0], square((1, 0, 0, 20, 20)))
    session.step(frames[1])
    result = session.add_object(square((1, 30, 0, 20, 20)))
    assert result.memory.objects[0].frames == (0, 1, None, None)
    assert result.memory.objects[0].pinned == (True, True, False, False)


def test_corrections_leave_room_for_the_latest_frame(model: STReMN) -> None:
    session = open_session(model)
    for t, frame in enumerate(noise(8)):
        result = session.step(frame, square((1, t, 0, 20, 20)))
    held = result.memory.objects[0]
    assert dict(zip(held.frames, held.pinned, strict=True)) == {0: True, 7: True, 6: False}
    assert set(session.step(frame).memory.objects[0].frames) == {0, 7, 8}


@pytest.mark.parametrize(
    ("slots", "kept"), [(2, {0}), (3, {0, 9}), (4, {0, 7, 9}), (5, {0, 5, 7, 9})]
)
def test_the_first_mask_and_the_newest_corrections_are_pinned(
    model: STReMN, slots: int, kept: set[int]
) -> None:
    """Also where a frame is corrected twice, and of one object alone."""
    session = open_session(model, memory_slots=slots)
    for t, frame in enumerate(noise(14)):
        both = square((1, t, 0, 20, 20), (2, 40, 40, 20, 20))
        result = session.step(frame, both if t == 0 else None)
        if t in (3, 5, 7, 9):
            for shift in (0, 5):
                result = session.add_object(square((1, t + shift, 0, 20, 20)))
    one, two = result.memory.objects
    assert {f for f, pin in zip(one.frames, one.pinned, strict=True) if pin} == kept
    assert {f for f, pin in zip(two.frames, two.pinned, strict=True) if pin} == {0}
    assert 13 in one.frames


def test_an_object_may_leave_and_return(model: STReMN) -> None:
    """Frames without the object are remembered like others; the given mask stays."""
    session, blank = open_session(model, policy="oldest"), np.zeros((64, 64, 3), np.uint8)
    batch = square_clips([[0]], frames=1)
    frame, mask = frames_of(batch)[0], masks_of(batch)[0]
    before = session.step(frame, mask)
    for _ in range(6):
        away = session.step(blank)
        assert np.isfinite(away.probabilities).all()
    assert away.memory.objects[0].frames[0] == before.frame == 0
    back = session.step(frame)
    inside = back.probabilities[0][mask == 1].mean()  # type: ignore[operator]
    assert inside > away.probabilities[0][mask == 1].mean()  # type: ignore[operator]


def test_frames_can_be_pinned_and_let_go(model: STReMN) -> None:
    session, frames = open_session(model, policy="oldest"), noise(12)
    mask = square((1, 0, 0, 20, 20), (2, 40, 40, 20, 20))
    session.step(frames[0], mask)
    session.step(frames[1])
    session.pin(1, object_id=2)
    for frame in frames[2:8]:
        result = session.step(frame)
    assert result.memory.objects[0].frames == (0, 7, 6)
    assert result.memory.objects[1].frames == (0, 1, 7)
    session.pin(1, pinned=False)
    for frame in frames[8:]:
        result = session.step(frame)
    assert 1 not in result.memory.objects[1].frames


# ---------------------------------------------------------------------- any input


def test_frames_and_masks_come_in_many_forms(model: STReMN, tmp_path: Path) -> None:
    frame, labels = noise(1)[0], square((1, 4, 4, 20, 20), (2, 40, 40, 20, 20)).astype(np.uint8)
    image = Image.fromarray(labels)
    image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0] + [9] * 759)
    image.save(tmp_path / "mask.png")
    tensor = torch.from_numpy(frame)
    frames = [
        frame,
        Image.fromarray(frame),
        tensor,
        tensor.permute(2, 0, 1),
        tensor.permute(2, 0, 1).float() / 255,
    ]
    masks = [
        labels,
        labels.astype(np.int64),
        torch.from_numpy(labels),
        image,
        tmp_path / "mask.png",
        str(tmp_path / "mask.png"),
    ]
    expected = run_two(model, frame, labels)
    for given in frames:
        assert np.array_equal(run_two(model, given, labels), expected)
    for mask in masks:
        assert np.array_equal(run_two(model, frame, mask), expected)


def run_two(model: STReMN, frame, mask) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Labels of the frame after the given one."""
    session = open_session(model)
    session.step(frame, mask)
    return session.step(frame).labels


def test_the_callers_model_stays_as_it_is() -> None:
    model = tiny_model().train()
    weights = {name: x.clone() for name, x in model.state_dict().items()}
    session = open_session(model, precision="bfloat16")
    session.step(noise(1)[0], square((1, 4, 4, 20, 20)))
    assert model.training
    assert all(torch.equal(x, weights[name]) for name, x in model.state_dict().items())
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.parametrize("name", ["learned", "evidence", "ucb", "diversity"])
def test_bfloat16_runs(model: STReMN, name: str) -> None:
    session = open_session(model, precision="bfloat16", policy=name)
    for t, frame in enumerate(noise(5)):
        result = session.step(frame, square((1, 4, 4, 20, 20)) if t == 0 else None)
    assert np.isfinite(result.probabilities).all()


# ------------------------------------------------------------------ saved and restored


@pytest.mark.parametrize("name", ALL_RULES)
def test_a_saved_session_goes_on_bit_for_bit(model: STReMN, name: str, tmp_path: Path) -> None:
    session, frames = open_session(model, policy=name, seed=3, reach=1.0), noise(9)
    mask = square((7, 4, 4, 20, 20), (300, 40, 40, 20, 20))
    for t, frame in enumerate(frames[:5]):
        session.step(frame, mask if t == 0 else None)
    session.save(tmp_path / "state.safetensors")
    other = SegmentationSession.load(tmp_path / "state.safetensors", model, device="cpu")
    for frame in frames[5:]:
        one, two = session.step(frame), other.step(frame)
        assert np.array_equal(one.labels, two.labels)
        assert np.array_equal(one.probabilities, two.probabilities)
        assert one.memory == two.memory
        assert (one.frame, one.ids) == (two.frame, two.ids)


def test_a_saved_session_goes_on_after_objects_came_and_went(model: STReMN, tmp_path: Path) -> None:
    session, frames = open_session(model, memory_slots=4), noise(9)
    session.step(frames[0], square((1, 0, 0, 20, 20), (2, 40, 40, 20, 20)))
    session.step(frames[1], square((3, 0, 40, 20, 20)))
    session.remove_object(1)
    session.pin(1, object_id=3)
    session.save(tmp_path / "a" / "state.safetensors")
    other = SegmentationSession.load(tmp_path / "a" / "state.safetensors", model, device="cpu")
    for frame in frames[2:]:
        one, two = session.step(frame), other.step(frame)
        assert np.array_equal(one.probabilities, two.probabilities)
        assert one.memory == two.memory


def test_a_session_without_objects_can_be_saved(model: STReMN, tmp_path: Path) -> None:
    open_session(model).save(tmp_path / "state.safetensors")
    other = SegmentationSession.load(tmp_path / "state.safetensors", model, device="cpu")
    assert other.step(noise(1)[0], square((1, 0, 0, 20, 20))).frame == 0


def test_a_rule_given_as_an_object_is_given_again(model: STReMN, tmp_path: Path) -> None:
    session, frames = open_session(model, policy=Oldest()), noise(8)
    for t, frame in enumerate(frames[:5]):
        session.step(frame, square((7, 4, 4, 20, 20)) if t == 0 else None)
    path = tmp_path / "state.safetensors"
    session.save(path)
    with pytest.raises(
        StremnError, match=r"as an object \('Oldest'\)\. Give it again: .*policy=rule"
    ):
        SegmentationSession.load(path, model, device="cpu")
    other = SegmentationSession.load(path, model, device="cpu", policy=Oldest())
    assert session.step(frames[5]).memory == other.step(frames[5]).memory


# ------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_slots": 0}, r"memory_slots \(K\) must be at least 1, got 0"),
        ({"size": 20}, "size must be at least 64, got 20"),
        ({"reach": -0.5}, r"reach must be 0 or more .* or None, got -0.5"),
        ({"reach": float("nan")}, "reach must be a number, got nan"),
        ({"policy": "fifo"}, "no policy 'fifo'. Choose one of"),
        ({"device": "gpu"}, "device 'gpu' cannot be used .* Use auto, cpu, cuda or mps"),
        ({"precision": "int8"}, "Unknown precision 'int8'; known: auto, float32"),
    ],
)
def test_impossible_options_are_refused(model: STReMN, options, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StremnError, match=message):
        open_session(model, **options)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("kind", ["str", "Pretrained"])
def test_a_session_of_something_else_than_a_network_is_refused(kind: str) -> None:
    model = {"str": "small", "Pretrained": Pretrained(tiny_model(), tiny_config())}[kind]
    with pytest.raises(StremnError, match=rf"got {kind}\. .*SegmentationSession\.from_pretrained"):
        SegmentationSession(model)  # type: ignore[arg-type]


def test_a_device_that_is_not_there_is_refused() -> None:
    absent = f"cuda:{torch.cuda.device_count()}"  # one more than there are
    with pytest.raises(StremnError, match=f"device '{absent}' cannot be used"):
        pick_device(absent)


def test_auto_picks_what_there_is() -> None:
    device = pick_device("auto")
    assert device.type in ("cpu", "cuda", "mps")
    assert pick_precision("auto", torch.device("mps")) == torch.float32
    with pytest.raises(StremnError, match="known: auto, float32, bfloat16"):
        pick_precision("float16", device)  # the sums of aggregation overflow in it
    assert pick_precision("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)


def test_a_step_before_any_mask_is_refused(model: STReMN) -> None:
    session = open_session(model)
    with pytest.raises(
        StremnError, match=r"There is no object to follow: give a mask .* step\(frame, mask"
    ):
        session.step(noise(1)[0])
    with pytest.raises(StremnError, match="add_object needs a frame, but this"):
        session.add_object(square((1, 0, 0, 20, 20)))
    assert session.step(noise(1, (48, 80))[0], np.ones((48, 80), np.uint8)).frame == 0


@pytest.mark.parametrize(
    ("frame", "mask", "message"),
    [
        (noise(1, (64, 60))[0], None, "Frame 1 is 60x64 pixels, those before were 64x64"),
        (noise(1)[0], np.zeros((64, 64), np.uint8), "mask holds no object"),
        (noise(1)[0], np.ones((60, 64), np.uint8), "mask is 64x60 pixels, the frame 64x64"),
        (noise(1)[0], np.ones((64, 64), np.float32), "must hold integer ids .* got float32"),
        (noise(1)[0], np.full((64, 64), -1), "ids from 0 to 65535, got -1"),
        (noise(1)[0][..., 0], None, r"RGB image of shape \(height, width, 3\)"),
        (noise(1)[0].astype(np.float32), None, "type uint8, got .* float32"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_bad_frame_or_mask_is_refused_and_changes_nothing(
    model: STReMN, frame: np.ndarray, mask: np.ndarray | None, message: str
) -> None:
    sessions = [open_session(model), open_session(model)]
    for session in sessions:
        session.step(noise(1)[0], square((1, 0, 0, 20, 20)))
    with pytest.raises(StremnError, match=message):
        sessions[0].step(frame, mask)
    results = [session.step(noise(2)[1]) for session in sessions]
    assert np.array_equal(results[0].probabilities, results[1].probabilities)
    assert results[0].memory == results[1].memory


def test_objects_and_frames_that_are_not_there_are_refused(model: STReMN) -> None:
    session = open_session(model)
    with pytest.raises(StremnError, match=r"no object 3\. Objects followed now: none"):
        session.remove_object(3)
    with pytest.raises(StremnError, match="No slot holds frame 0"):
        session.pin(0)
    session.step(noise(1)[0], square((1, 0, 0, 20, 20), (7, 30, 0, 20, 20)))
    with pytest.raises(StremnError, match=r"no object 3\. Objects followed now: 1, 7"):
        session.remove_object(3)
    with pytest.raises(StremnError, match="no object 3"):
        session.pin(0, object_id=3)
    with pytest.raises(StremnError, match=r"No slot holds frame 5\. result\.memory lists"):
        session.pin(5)
    with pytest.raises(StremnError, match="mask is 64x60 pixels"):
        session.add_object(np.ones((60, 64), np.uint8))


def test_files_that_are_no_session_are_refused(model: STReMN, tmp_path: Path) -> None:
    with pytest.raises(StremnError, match="There is no saved session"):
        SegmentationSession.load(tmp_path / "none.safetensors", model)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"no tensors")
    with pytest.raises(StremnError, match="is damaged or not a saved session"):
        SegmentationSession.load(damaged, model)
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(StremnError, match="holds no saved session"):
        SegmentationSession.load(tmp_path / "other.safetensors", model)


def test_a_session_of_other_weights_is_refused(model: STReMN, tmp_path: Path) -> None:
    session = open_session(model)
    session.step(noise(1)[0], square((1, 0, 0, 20, 20)))
    session.save(tmp_path / "state.safetensors")
    with pytest.raises(StremnError, match="saved with other weights"):
        SegmentationSession.load(tmp_path / "state.safetensors", tiny_model(seed=2))


def test_a_place_that_cannot_be_written_is_named(model: STReMN, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StremnError, match=r"file cannot be written: a part of this path is a file"):
        open_session(model).save(tmp_path / "file" / "state.safetensors")
