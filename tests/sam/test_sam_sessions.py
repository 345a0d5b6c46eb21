"""SAM models of transformers on this package's memory, against transformers' own sessions."""

import gc
import re
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from stremn.benchmarks.sam import OwnSession, held_bytes
from stremn.errors import StremnError
from stremn.sam import models
from stremn.sam.prompts import Prompt
from stremn.sam.rules import SAM_POLICIES
from stremn.sam.sessions import SamSession
from stremn.sam.slots import MOST_GIVEN, positions
from tiny_sam import FAMILIES, noisy_square, square_mask, tiny_sam


def given(frame: int) -> np.ndarray | None:
    """A first mask, an object added midway, two corrections."""
    known = {0: square_mask(0, 1), 9: square_mask(20, 7), 17: square_mask(17, 1)}
    return known.get(frame, square_mask(19, 1) if frame == 19 else None)


def kept(session: SamSession) -> int:
    """Bytes of all tensors a session holds on to, whatever they are for."""
    return held_bytes({k: v for k, v in vars(session).items() if k.startswith("_")})


@pytest.mark.parametrize("family", FAMILIES)
def test_the_oldest_rule_is_transformers_own_streaming(family: str) -> None:
    model = tiny_sam(family)
    ours, theirs = SamSession(model, device="cpu"), OwnSession(model)
    assert ours.memory_slots == model.config.num_maskmem
    for frame in range(45):
        image, mask = noisy_square(frame), given(frame)
        result = ours.step(image, mask)
        expected = theirs.step(image, mask).sigmoid().numpy()
        np.testing.assert_allclose(result.probabilities, expected, atol=1e-5, err_msg=str(frame))
    assert result.ids == (1, 7)


def test_labels_of_a_given_mask_are_as_given() -> None:
    mask = square_mask(0, 3)
    mask[30, 70] = 9  # smaller than the model can draw
    session = SamSession(tiny_sam(), device="cpu")
    np.testing.assert_array_equal(session.step(noisy_square(0), mask).labels, mask)
    corrected = np.where(mask == 9, mask, 0).astype(np.uint8)
    labels = session.step(noisy_square(1), corrected).labels
    np.testing.assert_array_equal(labels == 9, corrected == 9)


def test_fewer_slots_are_not_the_same() -> None:
    model = tiny_sam()
    ours, theirs = SamSession(model, device="cpu", memory_slots=3), OwnSession(model)
    apart = 0.0
    for frame in range(8):
        result = ours.step(noisy_square(frame), given(frame))
        expected = theirs.step(noisy_square(frame), given(frame)).sigmoid().numpy()
        apart = max(apart, float(abs(result.probabilities - expected).max()))
    assert apart > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_memory_stays_flat_while_transformers_grows(family: str) -> None:
    model = tiny_sam(family)
    ours, theirs = SamSession(model, device="cpu", policy="evidence"), OwnSession(model)
    sizes = []
    for frame in range(60):
        ours.step(noisy_square(frame), square_mask(0) if frame == 0 else None)
        theirs.step(noisy_square(frame), square_mask(0) if frame == 0 else None)
        if frame in (29, 59):
            sizes.append((kept(ours), ours.memory_bytes, theirs.nbytes))
    (kept_before, before, grown_before), (kept_after, after, grown_after) = sizes
    assert (kept_after, after) == (kept_before, before)
    assert grown_after > 1.8 * grown_before


@pytest.mark.slow
def test_a_thousand_frames_take_no_more_than_a_hundred() -> None:
    session = SamSession(tiny_sam(), device="cpu", policy="evidence")
    sizes = {}
    for frame in range(1000):
        session.step(noisy_square(frame), given(frame))
        sizes[frame] = session.memory_bytes
    assert sizes[999] == sizes[99] == sizes[500]


@pytest.mark.parametrize("policy", SAM_POLICIES)
def test_every_rule_runs_and_keeps_what_was_given(policy: str) -> None:
    session = SamSession(tiny_sam(), device="cpu", policy=policy, memory_slots=4)
    for frame in range(14):
        result = session.step(noisy_square(frame), given(frame))
    first, second = result.memory.objects
    assert 0 in first.frames
    assert first.pinned[first.frames.index(0)]
    assert 9 in second.frames
    assert len(first.frames) == 4


def test_corrections_get_slots_of_their_own_up_to_a_number() -> None:
    session = SamSession(tiny_sam(), device="cpu", memory_slots=3)
    for frame in range(40):
        result = session.step(noisy_square(frame), square_mask(frame) if frame % 2 == 0 else None)
    (only,) = result.memory.objects
    assert len(only.frames) <= 3 + MOST_GIVEN
    assert 0 in only.frames
    assert 38 in only.frames


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_a_correction_in_every_frame_does_not_grow_the_memory_without_end(slots: int) -> None:
    session = SamSession(tiny_sam(), device="cpu", memory_slots=slots)
    for frame in range(2 * MOST_GIVEN + 5):
        (only,) = session.step(noisy_square(frame), square_mask(frame)).memory.objects
        assert len(only.frames) <= slots + MOST_GIVEN
    assert len(only.frames) == slots + MOST_GIVEN
    held = {t for t in only.frames if t is not None}
    assert {0, *range(frame - MOST_GIVEN + 1, frame + 1)} <= held


def test_a_single_slot_is_kept_next_to_eight_corrections() -> None:
    session = SamSession(tiny_sam(), device="cpu", memory_slots=1)
    for frame in range(MOST_GIVEN + 1):
        (only,) = session.step(noisy_square(frame), square_mask(frame)).memory.objects
        assert only.frames == tuple(range(frame + 1))
        assert all(only.pinned)


def test_pin_remove_and_report() -> None:
    session = SamSession(tiny_sam(), device="cpu", memory_slots=3)
    mask = square_mask(0, 1)
    mask[40:, 60:] = 2
    session.step(noisy_square(0), mask)
    session.step(noisy_square(1))
    session.pin(1, object_id=2)
    for frame in range(2, 8):
        result = session.step(noisy_square(frame))
    assert 1 not in result.memory.objects[0].frames
    assert 1 in result.memory.objects[1].frames
    assert result.memory.nbytes == session.memory_bytes
    session.remove_object(1)
    assert session.step(noisy_square(8)).ids == (2,)
    with pytest.raises(StremnError, match="no object 1"):
        session.remove_object(1)
    with pytest.raises(StremnError, match="No slot holds frame 5"):
        session.pin(5)
    session.remove_object(2)
    assert not session.step(noisy_square(9)).labels.any()


def test_add_object_looks_at_the_frame_given_last() -> None:
    session = SamSession(tiny_sam(), device="cpu")
    session.step(noisy_square(0), square_mask(0, 1))
    session.step(noisy_square(1))
    result = session.add_object(square_mask(12, 5))
    assert result.ids == (1, 5)
    assert result.frame == 1
    assert (result.labels == 5).any()
    corrected = session.add_object(square_mask(1, 1)).memory.objects[0]
    assert corrected.frames[:3] == (0, 1, None)
    assert corrected.pinned[1]


def small_correction() -> np.ndarray:
    """A mask of object 1 that shares a part of `square_mask(0)` and has one outside of it."""
    mask = np.zeros((48, 80), np.uint8)
    mask[10:20, 8:18] = 1
    return mask


def assert_equal_memories(one: SamSession, other: SamSession, object_id: int) -> None:
    """Compare all that two sessions keep of an object."""
    a, b = (session._memories[object_id] for session in (one, other))
    for name, x in a.state.tensors().items():
        if name != "seen":  # counts how often a frame was written
            torch.testing.assert_close(x, b.state.tensors()[name], msg=name)
    assert a.given.keys() == b.given.keys()
    for frame, pointer in a.given.items():
        torch.testing.assert_close(pointer, b.given[frame])


@pytest.mark.parametrize("family", FAMILIES)
def test_add_object_corrects_a_mask_given_with_the_same_frame(family: str) -> None:
    model = tiny_sam(family)
    session, fresh = SamSession(model, device="cpu"), SamSession(model, device="cpu")
    first = square_mask(0, 1)
    first[40:, 60:] = 2
    session.step(noisy_square(0), first)
    labels = session.add_object(small_correction()).labels
    np.testing.assert_array_equal(labels == 1, small_correction() == 1)
    np.testing.assert_array_equal(labels == 2, first == 2)
    fresh.step(noisy_square(0), small_correction())
    assert_equal_memories(session, fresh, 1)


def test_add_object_corrects_a_given_mask_by_a_prompt() -> None:
    model = tiny_sam()
    session, fresh = SamSession(model, device="cpu"), SamSession(model, device="cpu")
    prompts = {1: Prompt(box=(10, 12, 20, 16), exclude=[(60, 40)])}
    session.step(noisy_square(0), square_mask(0, 1))
    labels = session.add_object(prompts=prompts).labels
    expected = fresh.step(noisy_square(0), prompts=prompts).labels
    np.testing.assert_array_equal(labels, expected)
    assert (labels != square_mask(0, 1)).any()
    assert_equal_memories(session, fresh, 1)


@pytest.mark.parametrize("policy", ["oldest", "evidence", "random-select"])
def test_a_saved_session_goes_on_bit_for_bit(tmp_path: Path, policy: str) -> None:
    model = tiny_sam()
    whole = SamSession(model, device="cpu", policy=policy)
    for frame in range(12):
        whole.step(noisy_square(frame), given(frame))
    whole.save(tmp_path / "s.safetensors")
    again = SamSession.load(tmp_path / "s.safetensors", model, device="cpu")
    for frame in range(12, 24):
        one = whole.step(noisy_square(frame), given(frame))
        other = again.step(noisy_square(frame), given(frame))
        np.testing.assert_array_equal(one.probabilities, other.probabilities)
        assert one.memory == other.memory
    with pytest.raises(StremnError, match="other weights"):
        SamSession.load(tmp_path / "s.safetensors", tiny_sam(seed=1), device="cpu")


def test_sessions_of_two_precisions_share_a_model(tmp_path: Path) -> None:
    source = models.of_network(tiny_sam())
    alone = SamSession(tiny_sam(), device="cpu")
    session = SamSession(source, device="cpu")
    for one in (alone, session):
        one.step(noisy_square(0), square_mask(0))
    session.save(tmp_path / "s.safetensors")
    rough = SamSession(source, device="cpu", precision="bfloat16")
    rough.step(noisy_square(0), square_mask(0))
    expected = alone.step(noisy_square(1)).probabilities
    loaded = SamSession.load(tmp_path / "s.safetensors", source, device="cpu")
    for one in (session, loaded):
        np.testing.assert_array_equal(one.step(noisy_square(1)).probabilities, expected)
    rough.save(tmp_path / "rough.safetensors")
    again = SamSession.load(tmp_path / "rough.safetensors", source, device="cpu")
    assert again.dtype == torch.bfloat16
    one, other = (s.step(noisy_square(1)).probabilities for s in (rough, again))
    np.testing.assert_array_equal(one, other)


def test_weights_are_copied_only_where_they_differ_and_once() -> None:
    source = models.of_network(tiny_sam())
    assert SamSession(source, device="cpu").source is source
    rough = SamSession(source, device="cpu", precision="bfloat16")
    assert SamSession(source, device="cpu", precision="bfloat16").source is rough.source
    assert {x.dtype for x in source.network.parameters()} == {torch.float32}
    assert {x.dtype for x in rough.model.parameters()} == {torch.bfloat16}
    copied = weakref.ref(rough.source)
    del rough
    gc.collect()
    assert copied() is None


def test_boxes_and_clicks_reach_the_models_prompt_encoder() -> None:
    from stremn.sam.reading import session_class

    model = tiny_sam()
    prompt = Prompt(box=(10, 12, 20, 16), clicks=[(15, 20)], exclude=[(60, 40)])
    result = SamSession(model, device="cpu").step(noisy_square(0), prompts={3: prompt})
    own = session_class(model)(dtype=torch.float32)
    scale = np.array([64 / 80, 64 / 48])
    points = np.array([[10, 12], [30, 28], [15, 20], [60, 40]]) * scale
    own.add_point_inputs(
        own.obj_id_to_idx(3),
        0,
        {
            "point_coords": torch.tensor(points).float()[None, None],
            "point_labels": torch.tensor([[[2, 3, 1, 0]]], dtype=torch.int32),
        },
    )
    own.obj_with_new_inputs = [3]
    pixels = models.of_network(model).pixels(torch.from_numpy(noisy_square(0)), torch.float32)
    with torch.inference_mode():
        logits = model(inference_session=own, frame=pixels).pred_masks
    expected = torch.nn.functional.interpolate(logits, (48, 80), mode="bilinear")[:, 0].sigmoid()
    np.testing.assert_allclose(result.probabilities, expected.numpy(), atol=1e-5)


def test_positions_are_the_models_own_while_they_fit() -> None:
    assert positions([4, 5, 6, 7, 8, 9], 10, 6) == [6, 5, 4, 3, 2, 1]
    assert positions([5, 6, 8, 9], 10, 6) == [5, 4, 2, 1]
    assert positions([1, 2, 30, 40, 98, 99], 100, 6) == [6, 5, 4, 3, 2, 1]
    assert positions([1, 2], 100, 6) == [6, 5]
    assert positions([10, 20, 30], 40, 2) == [2, 2, 1]


def test_refused_calls_change_nothing() -> None:
    session = SamSession(tiny_sam(), device="cpu")
    with pytest.raises(StremnError, match="There is no object to follow"):
        session.step(noisy_square(0))
    session.step(noisy_square(0), square_mask(0))
    before = session.memory
    with pytest.raises(StremnError, match="outside the frame"):
        session.step(noisy_square(1), prompts={2: Prompt(clicks=[(99, 0)])})
    with pytest.raises(StremnError, match="those before were"):
        session.step(noisy_square(1)[:40])
    with pytest.raises(StremnError, match="a mask and a prompt"):
        session.step(noisy_square(1), square_mask(1), prompts={1: Prompt(clicks=[(9, 9)])})
    assert (session.memory, session.frame) == (before, 0)


def test_what_cannot_be_loaded_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(StremnError, match="holds a model of type 'bert'"):
        models.load_sam(tmp_path)
    with pytest.raises(StremnError, match="'append' keeps all"):
        SamSession(tiny_sam(), device="cpu", policy="append")
    with pytest.raises(StremnError, match=re.escape("Sessions run Sam2VideoModel")):
        SamSession(torch.nn.Linear(1, 1), device="cpu")
    monkeypatch.setattr(models.metadata, "version", lambda name: "4.57.1")
    with pytest.raises(StremnError, match=r"transformers 5\.20 or later, before 5\.25; 4\.57\.1"):
        models.load_sam(tmp_path)
