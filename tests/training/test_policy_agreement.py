import pytest
import torch

from memories import remember
from stremn.memory.policies import MostSimilar, Newest, Oldest, RandomDrop
from stremn.memory.state import MemoryState, Template
from stremn.training.segmentation.agreement import Watched


def test_a_rule_agrees_with_itself_and_changes_nothing() -> None:
    watched = Watched(Oldest(), {"oldest": Oldest(), "newest": Newest()})
    seen = remember(watched, 3, 8, batch=2)
    expected = remember(Oldest(), 3, 8, batch=2)
    assert torch.equal(seen.written_at, expected.written_at)
    assert watched.scalars() == {"agrees_oldest": 1.0, "agrees_newest": 0.0}


def test_shares_are_those_of_a_count() -> None:
    class Counting:
        """Random eviction that counts by hand where the most similar slot went."""

        same = contested = 0

        def __call__(self, state: MemoryState, new: Template, evictable: torch.Tensor):
            choice = RandomDrop(seed=3)(state, new, evictable)
            other = MostSimilar()(state, new, evictable)
            for row in range(len(evictable)):
                if int(evictable[row].sum()) > 1:
                    self.contested += 1
                    chosen = choice.replace[row].argmax()
                    self.same += int(chosen == other.replace[row].argmax())
            return choice

    counting = Counting()
    watched = Watched(counting, {"most-similar": MostSimilar()})
    remember(watched, 4, 20, batch=3)
    assert counting.contested > 20
    assert 0 < counting.same < counting.contested
    share = counting.same / counting.contested
    assert watched.scalars() == {"agrees_most-similar": pytest.approx(share)}


def test_without_a_choice_there_is_nothing_to_say() -> None:
    watched = Watched(Oldest(), {"newest": Newest()})
    remember(watched, 6, 4)
    assert watched.scalars() == {}
