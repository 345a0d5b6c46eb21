"""What an eviction is worth, against clips played by hand."""

import pytest
import torch

from stremn.memory.policies import Newest, Oldest, Spread
from stremn.memory.state import MemoryState, Template
from stremn.networks.model import STReMN
from stremn.training.segmentation.rollout import last_frame_scores, rollout
from stremn.training.segmentation.stakes import Forced, stakes
from tiny_model import square_clips, tiny_model


@pytest.fixture
def model() -> STReMN:
    return tiny_model().eval()


def test_forced_evicts_the_slot_it_is_told_at_its_frame_alone(model: STReMN) -> None:
    batch = square_clips([[0], [0]], 7)
    kept = []
    for n in (0, 1):
        clip = rollout(model, batch, memory_slots=3, policy=Forced(Newest(), 4, n))
        held = [set(choice.replace.argmax(1).tolist()) for choice in clip.choices]
        kept.append(held)
    # Frames 1 and 2 fill slots 1 and 2; at frame 4 slot n + 1 gives way; else "newest" decides.
    assert [row[3] for row in kept] == [{1}, {2}]
    free = rollout(model, batch, memory_slots=3, policy=Newest())
    expected = [set(choice.replace.argmax(1).tolist()) for choice in free.choices]
    assert [row[:3] for row in kept] == [expected[:3]] * 2


def test_forced_takes_the_last_open_slot_if_there_are_fewer() -> None:
    state = MemoryState.empty(2, 4, (1, 1), key=1, value=1, update_key=1)
    one = torch.ones(2, 1, 1, 1)
    new = Template(one, one, one, torch.zeros(2, 2), frame=3)
    evictable = torch.tensor([[False, True, True, True], [False, True, False, False]])
    choice = Forced(Oldest(), 3, 2)(state, new, evictable)
    assert choice.replace.argmax(1).tolist() == [3, 1]


def test_stakes_are_best_minus_worst_outcome(model: STReMN) -> None:
    batch = square_clips([[0], [0], [0]], 7)
    outcomes = torch.stack(
        [
            last_frame_scores(
                rollout(model, batch, memory_slots=3, policy=Forced(Spread(), 4, n)), batch
            )
            for n in (0, 1)
        ]
    )
    with torch.no_grad():
        found = stakes(model, batch, memory_slots=3)
    difference = (outcomes[0] - outcomes[1]).abs()
    difference = difference[~difference.isnan()]
    assert found["eviction_stake"] == pytest.approx(float(difference.mean()))
    assert found["evictions_that_matter"] == pytest.approx(
        float((difference > 0.01).float().mean())
    )


@pytest.mark.parametrize(("frames", "slots"), [(4, 3), (5, 6), (7, 2)])
def test_nothing_is_at_stake_where_nothing_or_no_choice_is_evicted(
    model: STReMN, frames: int, slots: int
) -> None:
    found = stakes(model, square_clips([[0], [0]], frames), memory_slots=slots)
    assert found == {"eviction_stake": 0.0, "evictions_that_matter": 0.0}
