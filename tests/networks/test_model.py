"""STReMN = encoders + memory + decoder (Fig 1): what goes in, what comes out."""

import numpy as np
import pytest
import torch

import oracles
from stremn.memory.choices import Choice, UpdatePolicy
from stremn.memory.policies import POLICIES, Learned, Oldest, build_policy
from stremn.memory.state import MemoryState
from stremn.networks.backbones import STRIDE
from stremn.networks.model import STReMN, evidence
from tiny_model import tiny_model

SIZE = (48, 64)


def write_frames(
    model: STReMN, frames: int, slots: int, policy: UpdatePolicy, seed: int = 0
) -> tuple[MemoryState, list[Choice]]:
    """Write random frames under random masks into a new memory of one entry, the first pinned."""
    generator = torch.Generator().manual_seed(seed)
    state, choices = model.empty_state(1, slots, SIZE), []
    for t in range(frames):
        query = model.encode_query(torch.rand(1, 3, *SIZE, generator=generator))
        masks = torch.rand(1, 2, *SIZE, generator=generator)
        state, choice = model.memorize(state, query, masks, frame=t, policy=policy, pin=t == 0)
        choices.append(choice)
    return state, choices


def test_the_decoder_gets_what_was_read_beside_the_querys_own_value(model: STReMN) -> None:
    """Eq 5: y = [read, v^Q]."""
    with torch.no_grad():
        state, _ = write_frames(model, 3, 4, Oldest())
        query = model.encode_query(torch.rand(1, 3, *SIZE))
        found = oracles.read(
            query.key[0].double().numpy(),
            state.keys[0].double().numpy(),
            state.values[0].double().numpy(),
            [True, True, True, False],
            model.widths["key"] ** -0.5,
        )
        y = torch.cat([torch.from_numpy(found).float()[None], query.value], dim=-1)
        expected = model.decoder(y.permute(0, 3, 1, 2), query.skips)
        logits = model.recall(state, query)
    assert logits.shape == (1, 1, SIZE[0] // 4, SIZE[1] // 4)
    np.testing.assert_allclose(logits.numpy(), expected.numpy(), atol=1e-3)


def test_the_scale_of_equation_5_is_a_choice_of_the_model() -> None:
    plain, scaled = tiny_model(scale="none"), tiny_model(scale="sqrt")
    with torch.no_grad():
        state, _ = write_frames(scaled, 3, 4, Oldest())
        query = scaled.encode_query(torch.rand(1, 3, *SIZE))
        assert not torch.allclose(plain.recall(state, query), scaled.recall(state, query))


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_rule_and_any_number_of_slots_run_with_the_same_weights(
    model: STReMN, name: str
) -> None:
    """K and the rule are choices of the run: they are not in the weights."""
    policy = build_policy(name)
    with torch.no_grad():
        query = model.encode_query(torch.rand(1, 3, *SIZE))
        for slots in (1, 2, 5, 32):
            state, _ = write_frames(model, 7, slots, policy)
            assert state.slots == slots
            assert model.recall(state, query).isfinite().all()


def test_slots_beyond_the_frames_change_nothing(model: STReMN) -> None:
    with torch.no_grad():
        query = model.encode_query(torch.rand(1, 3, *SIZE))
        results = [
            model.recall(write_frames(model, 5, slots, Oldest())[0], query) for slots in (5, 8, 32)
        ]
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(results[0], results[2], rtol=1e-5, atol=1e-5)


def update_gradient(model: STReMN, frames: int, slots: int) -> torch.Tensor:
    """Gradient of the update key's convolution when the frame after `frames` writes is segmented.

    The memory is written with the learned rule, noise and all.
    """
    model.zero_grad()
    state, _ = write_frames(model, frames, slots, Learned().train())
    model.recall(state, model.encode_query(torch.rand(1, 3, *SIZE))).square().mean().backward()
    gradient = model.update_key.conv.weight.grad
    return torch.zeros(1) if gradient is None else gradient


def test_no_eviction_no_lesson(model: STReMN) -> None:
    """The update key learns from replaced templates alone (Gumbel-softmax, Eq 2-4)."""
    assert float(update_gradient(model, frames=5, slots=5).abs().max()) == 0
    assert float(update_gradient(model, frames=5, slots=6).abs().max()) == 0
    # One slot to choose from is no choice: slot 0 is pinned.
    assert float(update_gradient(model, frames=5, slots=2).abs().max()) == 0
    assert float(update_gradient(model, frames=5, slots=1).abs().max()) == 0
    for slots in (3, 4):
        gradient = update_gradient(model, frames=5, slots=slots)
        assert gradient.isfinite().all()
        assert float(gradient.abs().max()) > 0


def test_a_frame_is_encoded_once_for_all_objects(model: STReMN) -> None:
    query = model.encode_query(torch.rand(1, 3, *SIZE))
    many = query.take(torch.zeros(5, dtype=torch.int64))
    assert many.key.shape[0] == 5
    assert many.key.data_ptr() == query.key.data_ptr()


def test_entries_take_the_query_of_their_video(model: STReMN) -> None:
    query = model.encode_query(torch.rand(3, 3, *SIZE))
    chosen = query.take(torch.tensor([2, 0, 2]))
    for name in ("key", "value", "frames", "stem"):
        assert torch.equal(getattr(chosen, name)[1], getattr(query, name)[0])
        assert torch.equal(getattr(chosen, name)[2], getattr(query, name)[2])
    for ours, theirs in zip(chosen.skips, query.skips, strict=True):
        assert ours is not None
        assert theirs is not None
        assert torch.equal(ours, theirs[[2, 0, 2]])


def test_an_empty_state_fits_the_frame(model: STReMN) -> None:
    state = model.empty_state(2, 3, SIZE)
    assert state.keys.shape == (2, 3, SIZE[0] // STRIDE, SIZE[1] // STRIDE, model.widths["key"])
    assert state.values.shape[-1] == model.widths["value"]
    assert state.update_keys.shape[-1] == model.widths["update_key"]


def test_the_memory_takes_the_models_precision(model: STReMN) -> None:
    assert model.bfloat16().empty_state(1, 2, SIZE).keys.dtype == torch.bfloat16


def test_before_training_a_memory_key_matches_the_query_key_of_its_frame(model: STReMN) -> None:
    features = model.query_encoder.channels[2]
    assert torch.equal(model.memory_key.conv.weight[:, :features], model.query_key.conv.weight)


def test_evidence_is_object_mass_and_confidence() -> None:
    mask = torch.zeros(4, 10, 10)
    mask[0, :5] = 1.0  # half the frame, for sure
    mask[1, :5] = 0.5  # as wide, not sure at all
    mask[2, :2] = 0.75
    expected = [[0.5, 1.0], [0.25, 0.0], [0.15, 0.5], [0.0, 0.0]]
    np.testing.assert_allclose(evidence(mask).numpy(), expected, atol=1e-6)
