"""The read that moves whole templates, against Eq 5 written out with summed affinities."""

import dataclasses

import pytest
import torch

from stremn.memory.displacements import displacement_votes, moved_maps, unfolded
from stremn.memory.matching import Matching
from stremn.memory.policies import Oldest
from stremn.memory.reading import read
from stremn.memory.state import EVIDENCE, MemoryState, Template
from stremn.memory.writing import write

MOVED = Matching(pooling="displacements")


def memory(count, slots, *, h=2, w=3, key=2, value=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    state = MemoryState.empty(2, slots, (h, w), key=key, value=value, update_key=1)
    for frame in range(count):
        maps = [torch.randn(2, h, w, c, generator=draw) for c in (key, value, 1)]
        state, _ = write(state, Template(*maps, torch.zeros(2, EVIDENCE), frame), Oldest())
    return state, torch.randn(2, h, w, key, generator=draw)


def written_out(state, query, fold):
    """Eq 5 with the affinity of (p, q) summed over all pairs as far apart, and one for nothing."""
    folded = query.shape[1] * query.shape[2] * query.shape[3]
    factor = folded**-0.5
    query = unfolded(query, fold)
    keys, values = unfolded(state.keys, fold), unfolded(state.values, fold)
    b, _, h, w = query.shape
    found = torch.zeros(b, values.shape[2], h, w)
    places = [(y, x) for y in range(h) for x in range(w)]
    for entry in range(b):
        for y, x in places:
            scores, read_there = [torch.zeros(())], [torch.zeros(values.shape[2])]
            for slot in range(state.slots):
                if state.vacant[entry, slot]:
                    continue
                for v, u in places:
                    dy, dx = v - y, u - x
                    pairs = [
                        query[entry, :, i, j] @ keys[entry, slot, :, i + dy, j + dx]
                        for i, j in places
                        if 0 <= i + dy < h and 0 <= j + dx < w
                    ]
                    scores.append(torch.stack(pairs).sum() * factor)
                    read_there.append(values[entry, slot, :, v, u])
            found[entry, :, y, x] = torch.stack(scores).softmax(0) @ torch.stack(read_there)
    return found


@pytest.mark.parametrize(
    ("count", "fold", "key", "value"), [(3, 1, 2, 5), (2, 1, 2, 3), (3, 2, 4, 8)]
)
def test_it_is_eq_5_with_affinities_summed_over_displacements(count, fold, key, value):
    state, query = memory(count, 3, key=key, value=value)
    found = read(state, query, matching=dataclasses.replace(MOVED, fold=fold))
    assert found.shape == (2, 2, 3, value)
    expected = written_out(state, query, fold)
    torch.testing.assert_close(unfolded(found, fold), expected, rtol=1e-3, atol=1e-4)


def test_a_scene_is_recalled_beyond_what_the_query_shows():
    """The query shows the right half of what was stored, at the left: the rest is black to it."""
    scene = torch.randn(1, 12, 12, 4, generator=torch.Generator().manual_seed(1))
    state = MemoryState.empty(1, 2, (12, 12), key=4, value=4, update_key=1)
    blank = torch.zeros(1, 12, 12, 1)
    state, _ = write(state, Template(scene, scene, blank, torch.zeros(1, EVIDENCE), 0), Oldest())
    query = torch.zeros_like(scene)
    query[:, 4:, :6] = 3 * scene[:, :8, 6:]
    found = read(state, query, matching=MOVED)
    torch.testing.assert_close(found[:, 4:, :6], scene[:, :8, 6:], rtol=0, atol=0.02)
    query = torch.zeros_like(scene)
    query[:, :, 6:] = 3 * scene[:, :, :6]  # the other way: what was stored goes on beyond the frame
    found = read(state, query, matching=MOVED)
    torch.testing.assert_close(found[:, :, 6:], scene[:, :, :6], rtol=0, atol=0.02)
    assert found[:, :, :5].abs().max() < 0.05  # nothing was stored there


def test_an_old_template_is_read_where_a_better_match_does_not_reach():
    scene = torch.randn(1, 8, 24, 4, generator=torch.Generator().manual_seed(2))
    state = MemoryState.empty(1, 2, (8, 16), key=4, value=4, update_key=1)
    for frame, left in enumerate((0, 8)):
        shown = scene[:, :, left : left + 16]
        blank = shown[..., :1]
        new = Template(shown, shown, blank, torch.zeros(1, EVIDENCE), frame)
        state, _ = write(state, new, Oldest())
    view = scene[:, :, 5:21].clone()
    query = view.clone()
    query[:, :, :3] = 0  # has just come back into view
    found = read(state, query, matching=MOVED)
    torch.testing.assert_close(found, view, rtol=0, atol=0.02)


def test_votes_count_displacements_and_maps_move_by_them():
    maps = torch.zeros(1, 1, 1, 4, 4)
    maps[..., 3, 2] = 1.0
    query = torch.zeros(1, 1, 4, 4)
    query[..., 1, 1] = 1.0
    votes = displacement_votes(query, maps)
    assert votes.flatten().argmax() == 2 * 8 + 1  # down by 2, right by 1
    moved = moved_maps((votes > 0.5).float(), maps)
    torch.testing.assert_close(moved[0, 0, 0], query[0, 0], rtol=0, atol=1e-5)


def test_gradients_reach_keys_values_and_query():
    state, query = memory(2, 2)
    keys, values = state.keys.requires_grad_(), state.values.requires_grad_()
    query.requires_grad_()
    read(state, query, matching=MOVED).square().sum().backward()
    for tensor in (keys, values, query):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
        assert float(tensor.grad.abs().max()) > 0


def test_float64_stays_float64():
    """Finite differences see nothing through float32."""
    state, query = memory(2, 2)
    state = dataclasses.replace(state, keys=state.keys.double(), values=state.values.double())

    def found(keys, values, query):
        held = dataclasses.replace(state, keys=keys, values=values)
        return read(held, query, matching=MOVED)

    inputs = (state.keys.clone(), state.values.clone(), query.double())
    assert found(*inputs).dtype == torch.float64
    assert torch.autograd.gradcheck(found, tuple(x.requires_grad_() for x in inputs))


def test_an_empty_memory_reads_zeros():
    state, query = memory(0, 2)
    assert not read(state, query, matching=MOVED).any()


@pytest.mark.parametrize("other", [{"top": 20}, {"similarity": "squared-l2"}])
def test_a_read_by_displacements_takes_no_other_comparison(other):
    with pytest.raises(ValueError, match="takes the dot product and all matches"):
        Matching(pooling="displacements", **other)
