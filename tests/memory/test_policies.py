"""Update policies: the learned one against Eq 1-3 in loops, the rules against plain lists."""

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

import oracles
from memories import UPDATE, empty, remember, templates
from stremn.errors import StremnError
from stremn.memory.choices import highest, open_slots
from stremn.memory.learned_policies import gumbel_choice
from stremn.memory.matching import Matching, Scale
from stremn.memory.policies import (
    POLICIES,
    Append,
    Diversity,
    EmptyFirst,
    Evidence,
    FirstAndLast,
    Learned,
    LeastUsed,
    MostSimilar,
    Newest,
    Oldest,
    RandomDrop,
    RandomSelect,
    Spread,
    SpreadOccupied,
    UpperConfidence,
    build_policy,
)
from stremn.memory.reading import read
from stremn.memory.similarity import largest, similarity
from stremn.memory.slot_features import FEATURES, attention_mass, slot_features, time_gap
from stremn.memory.state import MemoryState, Template
from stremn.memory.writing import write


def all_but_first(slots: int) -> torch.Tensor:
    """Slots that may be replaced when the first is pinned."""
    return torch.tensor([[slot > 0 for slot in range(slots)]])


def scores_of(state: MemoryState, new: Template) -> list[float]:
    """Eq 1 for every slot of the first entry, in loops."""
    fresh = new.update_key[0].numpy().astype(np.float64)
    stored = state.update_keys[0].numpy().astype(np.float64)
    return [oracles.similarity(fresh, slot) for slot in stored]


# ----------------------------------------------------------------------------------- Eq 1


def test_similarity_is_equation_1() -> None:
    new = torch.randn(2, 2, 3, UPDATE, dtype=torch.float64)
    stored = torch.randn(2, 4, 2, 3, UPDATE, dtype=torch.float64)
    found = similarity(new, stored)
    for entry in range(2):
        for slot in range(4):
            expected = oracles.similarity(new[entry].numpy(), stored[entry, slot].numpy())
            assert float(found[entry, slot]) == pytest.approx(expected, abs=1e-14)


def test_similarity_is_of_the_new_frame_to_the_slot_and_not_the_other_way() -> None:
    """Eq 1 averages over the new frame's positions: one matching position in a slot is enough."""
    new = torch.tensor([1.0, 0.0]).expand(1, 1, 2, 2)
    slot = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(1, 1, 1, 2, 2)
    assert float(similarity(new, slot)) == 1.0
    assert float(similarity(slot[:, 0], new[:, None])) == 0.5


def test_similarity_does_not_depend_on_length_or_place() -> None:
    new = torch.randn(1, 3, 3, UPDATE, dtype=torch.float64)
    moved = 7 * new.flip(1).roll(1, dims=2)
    assert float(similarity(new, moved[:, None])) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("kind", ["any", "negative", "one row negative", "zero", "nan"])
def test_the_largest_of_a_row_is_found_by_its_bits(kind: str) -> None:
    rows = torch.randn(40, 300).bfloat16()
    if kind == "negative":
        rows = -rows.abs() - 0.01
    elif kind == "one row negative":
        rows[7] = -rows[7].abs() - 0.01
    elif kind == "zero":
        rows[3], rows[4] = -0.0, -rows[4].abs()
        rows[4, 5] = 0.0
    elif kind == "nan":
        rows[2, 9] = torch.nan
    assert torch.equal(largest(rows).nan_to_num(9), rows.amax(-1).nan_to_num(9))
    assert torch.equal(largest(rows.float()).nan_to_num(9), rows.float().amax(-1).nan_to_num(9))


def test_similarity_is_differentiable() -> None:
    torch.autograd.gradcheck(
        similarity,
        (
            torch.randn(2, 2, 2, UPDATE, dtype=torch.float64, requires_grad=True),
            torch.randn(2, 3, 2, 2, UPDATE, dtype=torch.float64, requires_grad=True),
        ),
    )


# --------------------------------------------------------------------------------- Eq 2-3


@pytest.mark.parametrize("tau", [0.3, 1.0, 4.0])
def test_the_choice_is_hard_forward_and_equation_3_backward(tau: float) -> None:
    scores = torch.randn(1, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, dtype=torch.float64)
    torch.manual_seed(7)
    choice = gumbel_choice(scores, torch.ones(1, 5, dtype=torch.bool), tau, noisy=True)
    torch.manual_seed(7)
    noise = (-torch.empty(1, 5, dtype=torch.float64).exponential_().log())[0].tolist()

    values = scores[0].tolist()
    soft = oracles.soft_choice(values, noise, tau)
    assert choice.replace[0].tolist() == oracles.hard_choice(soft)

    (choice.replace[0] * weight).sum().backward()
    step = 1e-6
    for slot in range(5):
        up, down = list(values), list(values)
        up[slot] += step
        down[slot] -= step
        rise = np.dot(oracles.soft_choice(up, noise, tau), weight.numpy())
        fall = np.dot(oracles.soft_choice(down, noise, tau), weight.numpy())
        assert scores.grad is not None
        slope = (rise - fall) / (2 * step)
        assert float(scores.grad[0, slot]) == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_noise_chooses_slots_as_often_as_their_softmax(tau: float) -> None:
    """The Gumbel-max law: P(slot i) = exp(s_i) / sum exp(s_j), whatever tau."""
    runs, scores = 40_000, torch.tensor([0.0, 1.0, -1.0, 2.0])
    open_ = torch.tensor([True, True, False, True]).expand(runs, 4)
    choice = gumbel_choice(scores.expand(runs, 4), open_, tau, noisy=True)
    shares = scores[[0, 1, 3]].softmax(0)
    counts = choice.replace.sum(0)
    assert float(counts[2]) == 0
    for count, share in zip(counts[[0, 1, 3]].tolist(), shares.tolist(), strict=True):
        assert abs(count - runs * share) < 5 * math.sqrt(runs * share * (1 - share))


def test_noise_is_drawn_in_training_only_unless_asked_for() -> None:
    state, new = remember(Oldest(), 5, 9), templates(10)[9]
    open_ = open_slots(state)
    quiet, noisy, training = Learned().eval(), Learned(noisy=True).eval(), Learned()

    def choices(policy: Learned) -> set[int]:
        return {int(policy(state, new, open_).replace.argmax()) for _ in range(40)}

    assert len(choices(quiet)) == 1
    assert len(choices(noisy)) > 1
    assert len(choices(training)) > 1


def test_without_noise_the_slot_most_similar_gives_way() -> None:
    """Decision: the highest score is replaced; the update keys learn what is alike."""
    policy = Learned().eval()
    for seed in range(8):
        state = remember(Oldest(), 4, 6, seed=seed)
        new = templates(8, seed=seed)[7]
        scores = scores_of(state, new)
        choice = policy(state, new, all_but_first(4))
        assert int(choice.replace.argmax()) == max(range(1, 4), key=lambda slot: scores[slot])
        np.testing.assert_allclose(choice.scores[0, 1:].numpy(), scores[1:], atol=1e-6)
        assert math.isnan(float(choice.scores[0, 0]))


def test_a_slot_that_cannot_be_chosen_gets_no_gradient() -> None:
    scores = torch.randn(2, 4, requires_grad=True)
    open_ = torch.tensor([[False, True, True, False], [False, False, False, False]])
    choice = gumbel_choice(scores, open_, 1.0, noisy=True)
    (choice.replace * torch.randn(2, 4)).sum().backward()
    assert scores.grad is not None
    assert (scores.grad[open_] != 0).all()
    assert (scores.grad[~open_] == 0).all()
    assert not choice.replace[1].any()


def test_one_open_slot_leaves_nothing_to_learn() -> None:
    scores = torch.randn(1, 4, requires_grad=True)
    open_ = torch.tensor([[False, False, True, False]])
    (gumbel_choice(scores, open_, 1.0, noisy=True).replace * torch.randn(1, 4)).sum().backward()
    assert scores.grad is not None
    assert not scores.grad.any()


# ------------------------------------------------------------------------ rules A-F, STM, spread


@pytest.mark.parametrize("slots", [2, 3, 6])
@pytest.mark.parametrize("frames", [1, 4, 23])
@pytest.mark.parametrize(
    ("policy", "rule"),
    [
        (Oldest(), oracles.rule_oldest),
        (Newest(), oracles.rule_newest),
        (Spread(), oracles.rule_spread),
    ],
)
def test_rules_of_time_hold_the_frames_that_lists_hold(policy, rule, slots, frames) -> None:
    held = remember(policy, slots, frames).written_at[0].tolist()
    expected = oracles.frames_held(rule, slots, frames)
    assert held == expected + [-1] * (slots - len(expected))


@pytest.mark.parametrize("slots", [2, 3, 6])
@pytest.mark.parametrize("frames", [2, 5, 12])
def test_rule_e_holds_the_first_and_the_last_frame(slots: int, frames: int) -> None:
    held = remember(FirstAndLast(), slots, frames).written_at[0].tolist()
    assert held == [0, frames - 1] + [-1] * (slots - 2)


def test_rule_f_drops_what_looks_most_alike_whatever_the_update_keys() -> None:
    """Appearance is that of the read's keys; by update keys it would be the learned rule."""
    differ = 0
    for seed in range(8):
        state, new = remember(Oldest(), 4, 6, seed=seed), templates(8, seed=seed)[7]
        alike = [oracles.similarity(new.key[0].numpy(), slot) for slot in state.keys[0].numpy()]
        choice = MostSimilar()(state, new, all_but_first(4))
        chosen = int(choice.replace.argmax())
        assert chosen == max(range(1, 4), key=lambda slot: alike[slot])
        differ += chosen != int(Learned().eval()(state, new, all_but_first(4)).replace.argmax())
    assert differ


def test_rule_c_drops_every_slot_as_often_and_never_a_pinned_one() -> None:
    runs, new = 6000, templates(1, 1)[0]
    state = empty(5, runs)
    choice = RandomDrop(seed=None)(state, new, all_but_first(5).expand(runs, 5))
    counts = choice.replace.sum(0).tolist()
    assert counts[0] == 0
    for count in counts[1:]:
        assert abs(count - runs / 4) < 5 * math.sqrt(runs / 4 * 3 / 4)


def test_rule_c_drops_every_slot_as_often_over_seeds_and_frames() -> None:
    state, counts, runs = empty(4), torch.zeros(4), 0
    for new in templates(20):
        for seed in range(100):
            choice = RandomDrop(seed)(state, new, torch.ones(1, 4, dtype=torch.bool))
            counts += choice.replace[0]
            runs += 1
    assert (counts - runs / 4).abs().max() < 5 * math.sqrt(runs * 3 / 16)


@pytest.mark.parametrize("pinned", [True, False])
def test_rule_d_keeps_every_past_frame_equally_often(pinned: bool) -> None:
    """Counts are binomial; five deviations are passed once in 1.7 million."""
    runs, slots, frames = 4000, 4, 14
    policy, state = RandomSelect(seed=None), empty(slots, runs)
    for template in templates(frames):
        wide = Template(
            *(
                x.expand(runs, *x.shape[1:])
                for x in (template.key, template.value, template.update_key, template.evidence)
            ),
            template.frame,
        )
        state, _ = write(state, wide, policy, pin=pinned and template.frame == 0)
    _check_equal_shares(state.written_at, frames, slots, pinned)


def test_rule_d_keeps_every_past_frame_equally_often_over_seeds() -> None:
    slots, frames = 3, 9
    held = [remember(RandomSelect(seed), slots, frames).written_at for seed in range(150)]
    _check_equal_shares(torch.cat(held), frames, slots, pinned=True)


def _check_equal_shares(held: torch.Tensor, frames: int, slots: int, pinned: bool) -> None:
    runs = len(held)
    counts = torch.bincount(held.flatten(), minlength=frames).tolist()
    first = 1 if pinned else 0
    assert all(count == runs for count in counts[:first])
    share = (slots - first) / (frames - first)
    for count in counts[first:]:
        assert abs(count - runs * share) < 5 * math.sqrt(runs * share * (1 - share))


@pytest.mark.parametrize("name", ["random-drop", "random-select"])
def test_random_rules_repeat_with_the_same_seed_and_differ_with_another(name: str) -> None:
    held = [remember(build_policy(name, seed), 5, 30).written_at.tolist() for seed in (1, 1, 2)]
    assert held[0] == held[1]
    assert held[0] != held[2]


@pytest.mark.parametrize("every", [1, 3, 5])
def test_append_holds_every_nth_frame_and_the_latest(every: int) -> None:
    for frames in (1, 2, 7, 13):
        held = remember(Append(every), 20, frames).written_at[0].tolist()
        assert sorted(t for t in held if t >= 0) == sorted({*range(0, frames, every), frames - 1})


def test_append_holds_frames_that_lie_five_apart_whichever_are_memorized() -> None:
    seen = templates(31)
    state = empty(20)
    for frame in range(0, 31, 2):
        state, _ = write(state, seen[frame], Append(5), pin=frame == 0)
    assert sorted(t for t in state.written_at[0].tolist() if t >= 0) == [0, 6, 12, 18, 24, 30]


def test_append_keeps_a_frame_before_one_that_is_pinned() -> None:
    seen = templates(9)
    state = empty(20)
    for frame in range(9):
        state, _ = write(state, seen[frame], Append(5), pin=frame in (0, 6))
    assert sorted(t for t in state.written_at[0].tolist() if t >= 0) == [0, 5, 6, 8]


def test_append_that_is_full_goes_on_with_the_latest_alone() -> None:
    assert sorted(remember(Append(5), 3, 40).written_at[0].tolist()) == [0, 5, 39]


# ------------------------------------------------------------------- rules from elsewhere


def test_attention_mass_is_the_share_of_equation_5() -> None:
    state, new = remember(Oldest(), 4, 6), templates(9)[8]
    assert new.query_key is not None
    expected = oracles.attention_mass(
        new.query_key[0].numpy().astype(np.float64), state.keys[0].numpy().astype(np.float64)
    )
    np.testing.assert_allclose(attention_mass(state, new)[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    "how",
    [*(Matching(scale=scale) for scale in get_args(Scale)), Matching("squared-l2", "sqrt", 5)],
)
def test_attention_mass_is_what_is_read_of_each_slot(how: Matching) -> None:
    state, new = remember(Oldest(), 4, 2), replace(templates(9)[8], matching=how)
    b, k, h, w, _ = state.keys.shape
    slot = torch.eye(k)[None, :, None, None].expand(b, k, h, w, k)
    assert new.query_key is not None
    share = read(replace(state, values=slot), new.query_key, matching=how).mean((1, 2))
    torch.testing.assert_close(attention_mass(state, new), share, rtol=1e-5, atol=1e-6)


def test_attention_mass_of_vacant_slots_is_zero() -> None:
    new = templates(9)[8]
    mass = attention_mass(remember(Oldest(), 4, 2), new)[0]
    assert float(mass.sum()) == pytest.approx(1, abs=1e-6)
    assert mass[2:].tolist() == [0, 0]
    assert attention_mass(empty(3), new).tolist() == [[0, 0, 0]]


def test_time_gap_is_between_neighbors_in_time() -> None:
    state = remember(Oldest(), 4, 6)  # frames 0, 4, 5, 3 in its slots
    assert state.written_at.tolist() == [[0, 4, 5, 3]]
    assert time_gap(state, 9).tolist() == [[3, 2, 5, 4]]


def test_upper_confidence_is_its_formula() -> None:
    slots, tally = 4, [0.0] * 4
    state = empty(slots)
    for new in templates(16):
        before, relevance = state, tally
        state, choice = write(state, new, UpperConfidence(), pin=new.frame == 0)
        mass = attention_mass(before, new)[0].tolist()
        times = before.written_at[0].tolist()
        relevance = [0.8 * m + 0.2 * old for m, old in zip(mass, tally, strict=True)]
        if new.frame >= slots:
            ages = [new.frame - t for t in times]
            total = sum(ages)
            bounds = [
                r + 1.5 * math.sqrt(math.log(total) / (age + 8))
                for r, age in zip(relevance, ages, strict=True)
            ]
            allowed = [i for i in range(1, slots) if times[i] != max(times)]
            assert int(choice.replace.argmax()) == min(allowed, key=lambda i: bounds[i])
        chosen = int(choice.replace.argmax())
        tally = [0.0 if i == chosen else r for i, r in enumerate(relevance)]
        np.testing.assert_allclose(state.tally[0].tolist(), tally, atol=1e-5)


def test_least_used_is_its_formula() -> None:
    slots, usage = 4, [0.0] * 4
    state = empty(slots)
    for new in templates(16):
        mass = attention_mass(state, new)[0].tolist()
        usage = [u + m for u, m in zip(usage, mass, strict=True)]
        times = state.written_at[0].tolist()
        state, choice = write(state, new, LeastUsed(), pin=new.frame == 0)
        chosen = int(choice.replace.argmax())
        if new.frame >= slots:
            rates = [u / (new.frame - t) for u, t in zip(usage, times, strict=True)]
            assert chosen == min(range(1, slots), key=lambda i: rates[i])
        usage[chosen] = 0.0
        np.testing.assert_allclose(state.tally[0].tolist(), usage, atol=1e-5)


def test_diversity_stores_only_what_raises_the_determinant() -> None:
    state, stored = remember(Oldest(), 3, 3), 0
    for new in templates(30)[3:]:
        keys = torch.nn.functional.normalize(state.keys[0].reshape(3, -1).double(), dim=1)
        fresh = torch.nn.functional.normalize(new.key.reshape(1, -1).double(), dim=1)
        volumes = []
        for slot in range(3):
            swapped = keys.clone()
            swapped[slot] = fresh
            volumes.append(float(np.linalg.det((swapped @ swapped.T).numpy())))
        today = float(np.linalg.det((keys @ keys.T).numpy()))
        best = max((1, 2), key=lambda slot: volumes[slot])
        state, choice = write(state, new, Diversity())
        expected = [float(slot == best and volumes[best] > today) for slot in range(3)]
        assert choice.replace[0].tolist() == expected
        stored += int(choice.replace.sum())
    assert 0 < stored < 20


def masses(*values: float) -> MemoryState:
    """A full memory whose templates show this much object; the first is pinned."""
    state = empty(len(values))
    for template, mass in zip(templates(len(values)), values, strict=True):
        shown = Template(
            template.key,
            template.value,
            template.update_key,
            torch.tensor([[mass, 1.0]]),
            template.frame,
        )
        state, _ = write(state, shown, Oldest(), pin=template.frame == 0)
    return state


@pytest.mark.parametrize(
    ("shown", "slot"),
    [
        ((0.3, 0.0, 0.3, 0.3), 1),  # nothing to see in it
        ((0.3, 0.001, 0.001, 0.3), 2),  # the newer of two bare ones
        ((0.3, 0.2, 0.3, 0.1), 3),  # none bare: the newest
        ((0.0, 0.0, 0.0, 0.0), 3),  # no object ever
    ],
)
def test_empty_first(shown: tuple[float, ...], slot: int) -> None:
    choice = EmptyFirst()(masses(*shown), templates(9)[8], all_but_first(4))
    assert int(choice.replace.argmax()) == slot


@pytest.mark.parametrize(
    ("shown", "slot"),
    [
        ((0.3, 0.3, 0.3, 0.0), 3),  # bare goes first, however wide its gap
        ((0.3, 0.3, 0.3, 0.3), 1),  # else the first of the closest neighbors
    ],
)
def test_spread_occupied(shown: tuple[float, ...], slot: int) -> None:
    choice = SpreadOccupied()(masses(*shown), templates(9)[8], all_but_first(4))
    assert int(choice.replace.argmax()) == slot


@pytest.mark.parametrize("name", sorted(set(POLICIES) - {"learned", "evidence"}))
def test_a_rule_without_weights_keeps_no_graphs(name: str) -> None:
    """In training they would hold each frame's attention until the end of the clip."""
    state, policy = empty(3), build_policy(name)
    for new in templates(6):
        maps = {at: getattr(new, at).clone().requires_grad_() for at in ("key", "query_key")}
        state, choice = write(state, replace(new, **maps), policy, pin=new.frame == 0)
        assert not choice.scores.requires_grad
        assert not state.tally.requires_grad
    assert state.keys.requires_grad


@pytest.mark.parametrize("others", [-1e30, 0.0, torch.nan])
def test_the_highest_score_is_that_of_an_evictable_slot(others: float) -> None:
    scores = torch.tensor([[others, -torch.inf, others, -torch.inf]])
    choice = highest(scores, torch.tensor([[False, True, False, True]]))
    assert choice.replace.tolist() == [[0, 1, 0, 0]]
    assert choice.scores[0, [1, 3]].tolist() == [-torch.inf, -torch.inf]
    assert choice.scores[0, [0, 2]].isnan().all()
    assert not highest(scores, torch.zeros(1, 4, dtype=torch.bool)).replace.any()


# ----------------------------------------------------------------------------- evidence rule


@pytest.mark.parametrize("frames", [0, 1, 3, 9])
def test_slot_features_are_finite_and_zero_where_nothing_is(frames: int) -> None:
    state = remember(Oldest(), 4, frames) if frames else empty(4)
    features = slot_features(state, templates(frames + 1)[frames])
    assert features.shape == (1, 4, FEATURES)
    assert features.isfinite().all()
    assert not features[state.vacant].any()


def test_evidence_rule_learns_its_weights_and_the_update_keys() -> None:
    state, new = remember(Oldest(), 4, 9), templates(10)[9]
    key = new.update_key.clone().requires_grad_()
    shown = Template(key=new.key, value=new.value, update_key=key, evidence=new.evidence, frame=9)
    policy = Evidence()
    choice = policy(state, shown, all_but_first(4))
    (choice.replace * torch.randn(1, 4)).sum().backward()
    assert key.grad is not None
    assert key.grad.any()
    assert all(
        weight.grad is not None and weight.grad.any() for weight in policy.score[0].parameters()
    )


def test_evidence_rule_runs_in_bfloat16() -> None:
    """Sessions move a model's policies to their precision with it."""
    state, new = remember(Oldest(), 4, 9), templates(10)[9]
    choice = Evidence().bfloat16().eval()(state, new, all_but_first(4))
    assert choice.replace.sum() == 1


# -------------------------------------------------------------------------------- by name


def test_rules_are_built_by_name() -> None:
    assert {"learned", "oldest", "newest", "random-drop", "random-select"} <= set(POLICIES)
    assert {"first-and-last", "most-similar", "append"} <= set(POLICIES)
    for name in POLICIES:
        choice = build_policy(name)(empty(3), templates(1)[0], torch.tensor([[True, False, False]]))
        assert choice.replace.tolist() == [[1, 0, 0]]


def test_an_unknown_rule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(StremnError, match=r"no policy 'fifo'\. Choose one of: learned, .*oldest"):
        build_policy("fifo")
