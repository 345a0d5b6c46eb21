"""Eq 4 and Eq 5 against loops, gradients, and what holds for any sequence of writes."""

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import oracles
from memories import GRID, KEY, UPDATE, VALUE, empty, entry_of, remember, templates
from stremn.memory import reading
from stremn.memory.choices import Choice, open_slots
from stremn.memory.matching import REFERENCE, Matching, Scale, Similarity
from stremn.memory.policies import POLICIES, Append, FirstAndLast, Learned, Oldest, build_policy
from stremn.memory.reading import affinity, comparable_keys, comparable_query, read, sharpness
from stremn.memory.state import MemoryState, Template, concat
from stremn.memory.writing import _overwrite, write

ALL_RULES = sorted(POLICIES)


class Fixed:
    """A policy that gives the vector it was made with."""

    def __init__(self, a: torch.Tensor) -> None:
        self.a = a

    def __call__(self, state: MemoryState, new: Template, evictable: torch.Tensor) -> Choice:
        return Choice(self.a, torch.zeros_like(self.a))


def full(slots: int, dtype: torch.dtype = torch.float64) -> MemoryState:
    """A memory with a template in every slot."""
    state = empty(slots, dtype=dtype)
    for template in templates(slots, dtype=dtype):
        state, _ = write(state, template, Oldest())
    return state


# ------------------------------------------------------------------------------ write (Eq 4)


@pytest.mark.parametrize("slot", [0, 2, None])
@pytest.mark.parametrize("learns", [True, False])
def test_write_is_equation_4(slot: int | None, learns: bool) -> None:
    state, new = full(3), templates(9, dtype=torch.float64)[8]
    a = torch.zeros(1, 3, dtype=torch.float64)
    if slot is not None:
        a[0, slot] = 1
    after, _ = write(state, new, Fixed(a.requires_grad_(learns)))
    for name, fresh in (("keys", new.key), ("values", new.value), ("update_keys", new.update_key)):
        expected = oracles.overwrite(
            getattr(state, name)[0].numpy(), fresh[0].numpy(), a[0].tolist()
        )
        np.testing.assert_allclose(getattr(after, name)[0].detach().numpy(), expected, atol=1e-15)
    assert after.written_at.tolist() == [[8 if i == slot else i for i in range(3)]]


def test_write_is_differentiable_in_slots_template_and_choice() -> None:
    def written(keys, key, a):  # type: ignore[no-untyped-def]
        return _overwrite(keys, key, a)

    torch.autograd.gradcheck(
        written,
        (
            torch.randn(2, 3, *GRID, KEY, dtype=torch.float64, requires_grad=True),
            torch.randn(2, *GRID, KEY, dtype=torch.float64, requires_grad=True),
            torch.rand(2, 3, dtype=torch.float64, requires_grad=True),
        ),
    )


class FeatureMemory:
    """The paper to the letter: stores feature maps X, projects all of them at every step."""

    def __init__(self, slots: int, key: nn.Conv2d, value: nn.Conv2d, update: nn.Conv2d) -> None:
        self.slots, self.key, self.value, self.update = slots, key, value, update
        self.held: list[torch.Tensor] = []

    def write(self, x: torch.Tensor, noise: torch.Tensor) -> None:
        """Eq 1-4 for one feature map x "1 c h w"; slot 0 is never replaced."""
        if len(self.held) < self.slots:
            self.held.append(x)
            return
        ours = F.normalize(self.update(x)[0].flatten(1), dim=0)  # cu p
        scores = []
        for slot in self.held:
            theirs = F.normalize(self.update(slot)[0].flatten(1), dim=0)  # cu q
            scores.append((ours.T @ theirs).max(dim=1).values.mean())
        logits = (torch.stack(scores) + noise)[1:]
        soft = torch.cat([torch.zeros(1, dtype=x.dtype), logits.softmax(0)])
        hard = torch.zeros_like(soft)
        hard[int(soft.argmax())] = 1
        a = hard + soft - soft.detach()
        self.held = [(1 - a[i]) * slot + a[i] * x for i, slot in enumerate(self.held)]

    def read(self, query: torch.Tensor) -> torch.Tensor:
        """Eq 5 for a query key "1 ck h w" -> "1 cv h w"."""
        keys = torch.cat([self.key(x)[0].flatten(1) for x in self.held], dim=1)
        values = torch.cat([self.value(x)[0].flatten(1) for x in self.held], dim=1)
        weights = (query[0].flatten(1).T @ keys / math.sqrt(len(keys))).softmax(1)
        return (values @ weights.T).reshape(1, -1, *query.shape[2:])


@pytest.mark.parametrize("noisy", [False, True])
def test_stored_projections_equal_stored_features_forward_and_backward(noisy: bool) -> None:
    """The departure from the paper's letter: project, then write = write, then project."""
    channels, frames, slots = 7, 8, 3
    convolutions = [
        nn.Conv2d(channels, width, 3, padding=1, dtype=torch.float64)
        for width in (KEY, VALUE, UPDATE)
    ]
    weights = [weight for conv in convolutions for weight in conv.parameters()]
    features = [
        torch.randn(1, channels, 4, 5, dtype=torch.float64, requires_grad=True)
        for _ in range(frames)
    ]
    queries = [torch.randn(1, KEY, 4, 5, dtype=torch.float64) for _ in range(frames)]
    target = torch.randn(1, VALUE, 4, 5, dtype=torch.float64)

    def ours() -> list[torch.Tensor]:
        torch.manual_seed(3)
        policy = Learned().train(noisy)
        state = MemoryState.empty(
            1, slots, (4, 5), key=KEY, value=VALUE, update_key=UPDATE, dtype=torch.float64
        )
        found = []
        for frame, (x, query) in enumerate(zip(features, queries, strict=True)):
            key, value, update = (conv(x).permute(0, 2, 3, 1) for conv in convolutions)
            template = Template(key, value, update, torch.zeros(1, 2), frame)
            state, _ = write(state, template, policy, pin=frame == 0)
            found.append(read(state, query.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        return found

    def letter() -> list[torch.Tensor]:
        torch.manual_seed(3)
        store = FeatureMemory(slots, *convolutions)
        found = []
        for x, query in zip(features, queries, strict=True):
            noise = torch.zeros(slots, dtype=torch.float64)
            if noisy:
                noise = -torch.empty(1, slots, dtype=torch.float64).exponential_().log()[0]
            store.write(x, noise)
            found.append(store.read(query))
        return found

    results = []
    for run in (ours, letter):
        found = run()
        loss = sum(((y - target) ** 2).mean() for y in found)
        assert isinstance(loss, torch.Tensor)
        gradients = torch.autograd.grad(loss, [*weights, *features], allow_unused=True)
        results.append((found, gradients))
    for y, expected in zip(results[0][0], results[1][0], strict=True):
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    for gradient, expected in zip(results[0][1], results[1][1], strict=True):
        assert (gradient is None) == (expected is None)
        if gradient is not None:
            torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)
    assert float(results[0][1][4].abs().max()) > 0  # the update key learns: slots were contested


# ------------------------------------------------------------------------------- read (Eq 5)


@pytest.mark.parametrize("scale", ["sqrt", "none", "log"])
@pytest.mark.parametrize("held", [1, 3])
def test_read_is_equation_5(scale: Scale, held: int) -> None:
    factor = 1.0 if scale == "none" else 1 / math.sqrt(KEY)
    if scale == "log":
        factor *= math.log(held * math.prod(GRID)) / math.log(REFERENCE)
    state = empty(3, dtype=torch.float64)
    made = templates(4, dtype=torch.float64)
    for template in made[:held]:
        state, _ = write(state, template, Oldest())
    query = made[3].key
    expected = oracles.read(
        query[0].numpy(),
        state.keys[0].numpy(),
        state.values[0].numpy(),
        [i < held for i in range(3)],
        factor,
    )
    found = read(state, query, matching=Matching(scale=scale))
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-14)


@pytest.mark.parametrize("similarity", ["dot", "squared-l2"])
@pytest.mark.parametrize("top", [None, 1, 5, 100])
@pytest.mark.parametrize("held", [1, 3])
def test_read_compares_and_chooses_as_its_matching_says(
    similarity: Similarity, top: int | None, held: int
) -> None:
    state = empty(3, dtype=torch.float64)
    made = templates(4, dtype=torch.float64)
    for template in made[:held]:
        state, _ = write(state, template, Oldest())
    state = replace(state, filled=3)  # as in a graph: what is vacant is masked, not cut off
    query, how = made[3].key, Matching(similarity, "sqrt", top)
    expected = oracles.read(
        query[0].numpy(),
        state.keys[0].numpy(),
        state.values[0].numpy(),
        [i < held for i in range(3)],
        1 / math.sqrt(KEY),
        squared_l2=similarity == "squared-l2",
        top=top,
    )
    found = read(state, query, matching=how)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-14)
    weights = affinity(
        comparable_query(state, query, how),
        comparable_keys(state.keys.flatten(1, 3), how),
        state.vacant,
        top,
    )
    dense = (weights @ state.values.flatten(1, 3)).unflatten(1, GRID)
    np.testing.assert_allclose(dense[0].numpy(), expected, atol=1e-14)


def test_entries_that_hold_the_same_keys_share_their_matches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, how = full(2), Matching("squared-l2", "sqrt", 5)
    tensors = {name: torch.cat([x, x, x]) for name, x in one.tensors().items()}
    tensors["values"][1] *= -2  # STCN: the same frames, other objects
    tensors["keys"][2, 0] += 0.5
    state = MemoryState(**tensors, filled=one.filled)
    query = templates(4, dtype=torch.float64)[3].key.expand(3, -1, -1, -1)
    calls, best = [], reading._best_matches
    monkeypatch.setattr(reading, "_best_matches", lambda *a: calls.append(1) or best(*a))
    found = read(state, query, matching=how)
    assert len(calls) == 2
    torch.testing.assert_close(found[1], -2 * found[0])
    alone = replace(one, keys=state.keys[2:])
    torch.testing.assert_close(found[2:], read(alone, query[2:], matching=how))


@pytest.mark.parametrize("top", [None, 5])
def test_read_by_distance_is_differentiable(top: int | None) -> None:
    state = full(2)
    how = Matching("squared-l2", "sqrt", top)

    def found(keys, values, query):  # type: ignore[no-untyped-def]
        return read(replace(state, keys=keys, values=values), query, matching=how)

    inputs = (state.keys.clone(), state.values.clone(), templates(4, dtype=torch.float64)[3].key)
    torch.autograd.gradcheck(found, tuple(x.requires_grad_() for x in inputs))


def test_distances_are_taken_in_float32_whatever_the_memory_holds() -> None:
    """Far from the origin small distances are differences of large squares."""
    state, query = full(2, torch.float32), templates(4)[3].key
    how = Matching("squared-l2", "none", 5)
    far = replace(state, keys=(state.keys + 50).bfloat16(), values=state.values.bfloat16())
    query = (query + 50).bfloat16()
    near = replace(far, keys=far.keys.float() - 50, values=state.values)
    expected = read(near, query.float() - 50, matching=how)
    found = read(far, query, matching=how)
    assert found.dtype == torch.bfloat16
    np.testing.assert_allclose(found.float().numpy(), expected.numpy(), atol=0.05)


def test_read_with_entries_filled_unequally_is_equation_5_of_each() -> None:
    made = templates(5, dtype=torch.float64)
    long, short = empty(3, dtype=torch.float64), empty(3, dtype=torch.float64)
    for template in made[:3]:
        long, _ = write(long, template, Oldest())
    short, _ = write(short, made[3], Oldest())
    query = made[4].key
    for scale in get_args(Scale):
        how = Matching(scale=scale)
        both = read(concat([long, short]), query.expand(2, -1, -1, -1), matching=how)
        torch.testing.assert_close(both[:1], read(long, query, matching=how), rtol=0, atol=1e-14)
        torch.testing.assert_close(both[1:], read(short, query, matching=how), rtol=0, atol=1e-14)


def test_scale_log_keeps_the_entropy_of_a_larger_memory() -> None:
    torch.manual_seed(0)
    relative = {}
    for scale in ("sqrt", "log"):
        entropies = []
        for side in (16, 48):
            keys, query = torch.randn(1, 3 * side**2, 64), torch.randn(1, 8, 8, 64) * 2
            empty = MemoryState.empty(1, 3, (side, side), key=64, value=1, update_key=1)
            taken = replace(empty, written_at=torch.zeros(1, 3, dtype=torch.int64))
            factor = sharpness(taken, scale)
            weights = affinity((query * factor).flatten(1, 2), keys, None)
            entropies.append(float(-(weights * weights.log()).sum(-1).mean()))
        relative[scale] = entropies[1] / entropies[0]
    assert relative["log"] < 1 + 0.5 * (relative["sqrt"] - 1)


def test_read_is_differentiable() -> None:
    state = full(2)

    def found(keys, values, query):  # type: ignore[no-untyped-def]
        return read(replace(state, keys=keys, values=values), query)

    torch.autograd.gradcheck(
        found,
        (
            torch.randn(1, 2, *GRID, KEY, dtype=torch.float64, requires_grad=True),
            torch.randn(1, 2, *GRID, VALUE, dtype=torch.float64, requires_grad=True),
            torch.randn(1, *GRID, KEY, dtype=torch.float64, requires_grad=True),
        ),
    )


def test_an_empty_memory_reads_finite_zeros() -> None:
    assert not read(empty(4), templates(1)[0].key).any()


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(5)), st.integers(1, 5))
def test_order_of_slots_does_not_matter_to_a_read(order: list[int], held: int) -> None:
    state = empty(5, dtype=torch.float64)
    made = templates(6, dtype=torch.float64)
    for template in made[:held]:
        state, _ = write(state, template, Oldest())
    mixed = {name: x[:, order] if name != "seen" else x for name, x in state.tensors().items()}
    query = made[5].key
    torch.testing.assert_close(
        read(MemoryState(**mixed, filled=5), query), read(state, query), rtol=0, atol=1e-14
    )


# ------------------------------------------------------------- any rule, any number of writes


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(ALL_RULES),
    slots=st.integers(1, 7),
    pins=st.lists(st.booleans(), min_size=1, max_size=12),
    batch=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_a_write_changes_one_slot_or_none_and_never_a_pinned_one(
    name: str, slots: int, pins: list[bool], batch: int, seed: int
) -> None:
    policy, state = build_policy(name, seed), empty(slots, batch)
    size = state.nbytes
    for template, pin in zip(templates(len(pins), batch, seed=seed), pins, strict=True):
        before, evictable = state, open_slots(state)
        state, choice = write(state, template, policy, pin=pin)
        assert state.nbytes == size
        assert state.slots == slots
        assert set(choice.replace.unique().tolist()) <= {0.0, 1.0}
        assert (choice.replace.sum(1) <= 1).all()
        replaced = choice.replace > 0.5
        assert not (replaced & before.pinned).any()
        assert (choice.replace.sum(1)[~evictable.any(1)] == 0).all()
        for field, fresh in (
            ("keys", template.key),
            ("values", template.value),
            ("update_keys", template.update_key),
            ("evidence", template.evidence),
        ):
            was, now = getattr(before, field), getattr(state, field)
            there = replaced.reshape(batch, slots, *[1] * (was.dim() - 2))
            assert torch.equal(now, torch.where(there, fresh[:, None], was))
        assert torch.equal(
            state.written_at, before.written_at.masked_fill(replaced, template.frame)
        )
        assert torch.equal(state.pinned, before.pinned | (replaced & torch.tensor(pin)))


LEAVES_ROOM = {"first-and-last", "append"}  # these two leave slots empty on purpose


@pytest.mark.parametrize("name", sorted(set(ALL_RULES) - LEAVES_ROOM))
def test_empty_slots_are_filled_first(name: str) -> None:
    state = remember(build_policy(name), slots=6, frames=6)
    assert state.written_at.tolist() == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("name", ALL_RULES)
def test_a_batch_of_two_is_two_alone(name: str) -> None:
    policy = build_policy(name, seed=5)
    both, alone = empty(4, batch=2), [empty(4), empty(4)]
    query = templates(40, batch=2)[39].key
    for template in templates(24, batch=2):
        both, _ = write(both, template, policy, pin=template.frame == 0)
        for entry in range(2):
            alone[entry], _ = write(
                alone[entry], entry_of(template, entry), policy, pin=template.frame == 0
            )
        for entry in range(2):
            assert both.written_at[entry].tolist() == alone[entry].written_at[0].tolist()
            torch.testing.assert_close(both.tally[entry], alone[entry].tally[0])
    for entry in range(2):
        one = query[entry : entry + 1]
        torch.testing.assert_close(
            read(both, query)[entry : entry + 1], read(alone[entry], one), rtol=1e-5, atol=1e-6
        )


def test_entries_can_be_pinned_one_by_one() -> None:
    state, _ = write(empty(2, 2), templates(1, 2)[0], Oldest(), pin=torch.tensor([True, False]))
    assert state.pinned.tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("name", ALL_RULES)
def test_what_is_to_be_pinned_is_stored_even_if_the_rule_declines(name: str) -> None:
    for frames in (2, 9, 30):
        state = remember(build_policy(name), slots=4, frames=frames)
        after, choice = write(state, templates(frames + 1)[frames], build_policy(name), pin=True)
        assert choice.replace.sum() == 1
        assert frames in after.written_at[0].tolist()
        assert after.pinned[after.written_at == frames].all()


@pytest.mark.parametrize("name", ALL_RULES)
def test_a_frame_that_is_held_is_replaced_by_itself(name: str) -> None:
    """The same frame again, under a corrected mask, pinned before or not."""
    state = remember(build_policy(name), slots=4, frames=9, batch=2)
    for frame in {0, 8} & set(state.written_at[0].tolist()):
        place = state.written_at == frame
        better = templates(9, batch=2, seed=1)[frame]
        after, choice = write(state, better, build_policy(name))
        rows = place.any(1)
        assert torch.equal(choice.replace[rows] > 0.5, place[rows])
        assert torch.equal(after.written_at[rows], state.written_at[rows])
        assert torch.equal(after.keys[place], better.key[rows])


def test_when_all_is_pinned_nothing_is_stored() -> None:
    state = empty(2)
    for template in templates(2):
        state, _ = write(state, template, Oldest(), pin=True)
    for name in ALL_RULES:
        after, choice = write(state, templates(3)[2], build_policy(name))
        assert not choice.replace.any()
        assert after.written_at.tolist() == [[0, 1]]


@pytest.mark.parametrize("reuse", [False, True])
def test_what_a_rule_puts_behind_empty_slots_is_read(reuse: bool) -> None:
    """A rule must not take pinned slots; no rule says that it must take the first empty one."""
    old, new, query = (template.key for template in templates(3))
    state = empty(4)
    for slot, template in zip((2, 0), templates(2), strict=True):
        a = F.one_hot(torch.tensor([slot]), 4).float()
        state, _ = write(state, template, Fixed(a), reuse=reuse)
        assert state.filled == 3
    assert state.written_at.tolist() == [[1, -1, 0, -1]]
    weights = (query.reshape(-1, KEY) @ torch.cat([new, old]).reshape(-1, KEY).T / 2).softmax(1)
    values = torch.cat([template.value.reshape(-1, VALUE) for template in templates(2)[::-1]])
    torch.testing.assert_close(read(state, query).reshape(-1, VALUE), weights @ values)


def test_when_all_is_pinned_not_even_what_is_to_be_pinned_is_stored() -> None:
    state = empty(2)
    for template in templates(3):
        state, choice = write(state, template, Oldest(), pin=True)
    assert not choice.replace.any()
    assert state.written_at.tolist() == [[0, 1]]


# ---------------------------------------------------------------------- memories that may grow


def test_a_growing_memory_keeps_every_nth_frame_and_the_latest() -> None:
    every, frames = 3, 20
    state = remember(Append(every), slots=2, frames=frames, growth=2)
    held = sorted(t for t in state.written_at[0].tolist() if t >= 0)
    assert held == sorted({*range(0, frames, every), frames - 1})


def test_a_growing_memory_adds_slots_only_when_all_are_taken() -> None:
    """Every third of 20 frames and the latest are 8 templates: no more than 9 slots, by twos."""
    state = remember(Append(3), slots=2, frames=20, growth=2)
    assert state.slots <= 9
    assert state.filled == 8


def test_keeping_all_in_a_growing_memory_reads_as_all_frames_at_once() -> None:
    made = templates(12)
    state = remember(Append(every=1), slots=3, frames=11, growth=4)
    keys = torch.cat([t.key.reshape(-1, KEY) for t in made[:11]])
    values = torch.cat([t.value.reshape(-1, VALUE) for t in made[:11]])
    query = made[11].key
    weights = (query.reshape(-1, KEY) @ keys.T / math.sqrt(KEY)).softmax(1)
    torch.testing.assert_close(read(state, query).reshape(-1, VALUE), weights @ values)


def test_a_large_memory_reads_as_a_growing_one() -> None:
    query = templates(30)[29].key
    large = remember(Append(4), slots=20, frames=25)
    growing = remember(Append(4), slots=2, frames=25, growth=3)
    torch.testing.assert_close(read(large, query), read(growing, query))


def test_a_memory_read_does_not_look_at_slots_never_filled() -> None:
    state = remember(FirstAndLast(), slots=8, frames=30)
    assert state.filled == 2


# ------------------------------------------------------------------------- joining, selecting


def test_select_and_concat_undo_each_other() -> None:
    state = remember(Oldest(), slots=3, frames=5, batch=3)
    parts = [state.select(torch.tensor([i])) for i in (2, 0, 1)]
    again = concat([parts[1], parts[2], parts[0]])
    for name, tensor in state.tensors().items():
        assert torch.equal(again.tensors()[name], tensor)


def test_concat_evens_out_slots_with_empty_ones() -> None:
    joined = concat([remember(Oldest(), 4, 9), remember(Oldest(), 2, 9)])
    assert joined.written_at.tolist() == [[0, 7, 8, 6], [0, 8, -1, -1]]


def test_a_memory_needs_a_slot() -> None:
    with pytest.raises(ValueError, match="at least one slot, got slots=0"):
        empty(0)


@pytest.mark.parametrize("name", ALL_RULES)
def test_a_memory_given_away_is_written_in_place_to_the_same_result(name: str) -> None:
    policy, copied, reused = build_policy(name), empty(4, batch=2), empty(4, batch=2)
    place = reused.keys.data_ptr()
    for template in templates(12, batch=2):
        pin = template.frame == 0
        copied, _ = write(copied, template, policy, pin=pin)
        reused, _ = write(reused, template, policy, pin=pin, reuse=True)
        for field, tensor in copied.tensors().items():
            assert torch.equal(reused.tensors()[field], tensor)
    assert reused.keys.data_ptr() == place


def test_a_write_leaves_the_state_it_was_given_as_it_was() -> None:
    state = full(3)
    copies = {name: x.clone() for name, x in state.tensors().items()}
    write(state, templates(4, dtype=torch.float64)[3], Oldest())
    assert all(torch.equal(x, copies[name]) for name, x in state.tensors().items())
