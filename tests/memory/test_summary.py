"""The summary of an object: least squares over all frames, in a constant size."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from memories import GRID, KEY, UPDATE, VALUE, templates
from stremn.memory.policies import Oldest
from stremn.memory.state import MemoryState, concat
from stremn.memory.summary import (
    RATE,
    RIDGE,
    beside_rivals,
    conjugate_gradients,
    frame_sums,
    likeness,
    with_frame,
)
from stremn.memory.writing import write

C, (H, W) = 5, GRID


def scene(seed: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of positions, the last one constant, and masks at sixteen times the size."""
    drawn = torch.Generator().manual_seed(seed)
    shown = torch.randn(batch, C, H, W, generator=drawn, dtype=torch.float64)
    shown[:, -1] = 1
    masks = torch.rand(batch, H, W, generator=drawn, dtype=torch.float64).round()
    return shown, masks.repeat_interleave(16, 1).repeat_interleave(16, 2)


def by_hand(shown: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    """The sums of one entry, position by position."""
    m = mask[::16, ::16].numpy()
    total = np.zeros((C, C + 1))
    for row in range(H):
        for column in range(W):
            x, share = shown[:, row, column].numpy(), m[row, column]
            weight = 0.5 * share / max(m.sum(), 1) + 0.5 * (1 - share) / max((1 - m).sum(), 1)
            total[:, :C] += weight * np.outer(x, x)
            total[:, C] += weight * x * share
    return total


def test_sums_are_those_over_all_positions() -> None:
    shown, masks = scene(0)
    found = frame_sums(shown, masks)
    for entry in range(2):
        np.testing.assert_allclose(found[entry], by_hand(shown[entry], masks[entry]), atol=1e-12)


def test_likeness_is_the_ridge_regression_of_both_sums() -> None:
    (shown, masks), (other, later) = scene(1), scene(2)
    first, second = frame_sums(shown, masks), frame_sums(other, later)
    found = likeness(torch.stack([first, second], 1), shown)
    for entry in range(2):
        mean = (first[entry] + second[entry]).numpy() / 2
        matrix = mean[:, :C] + RIDGE * np.trace(mean[:, :C]) / C * np.eye(C)
        weights = np.linalg.solve(matrix, mean[:, C])
        expected = np.einsum("c,chw->hw", weights, shown[entry].numpy())
        np.testing.assert_allclose(found[entry], expected, atol=1e-10)


def test_what_a_feature_tells_is_found() -> None:
    shown, masks = scene(3)
    shown[:, 0] = masks[:, ::16, ::16] * 2 - 1
    sums = frame_sums(shown, masks)
    found = likeness(torch.stack([sums, sums], 1), shown)
    torch.testing.assert_close(found, masks[:, ::16, ::16], atol=0.1, rtol=0)


def test_conjugate_gradients_solve_what_networks_show() -> None:
    """Features that depend on one another, as those of networks do, in float32."""
    drawn = torch.Generator().manual_seed(0)
    shown = torch.randn(1, 273, 40, generator=drawn) @ torch.randn(40, 600, generator=drawn) / 40
    shown = (shown + 0.1 * torch.randn(1, 273, 600, generator=drawn)).unflatten(2, (20, 30))
    masks = torch.rand(1, 320, 480, generator=drawn).round()
    sums = frame_sums(shown, masks)
    matrix, right = sums[:, :, :-1], sums[:, :, -1:]
    matrix = matrix + RIDGE * matrix.diagonal(dim1=1, dim2=2).mean() * torch.eye(273)
    exact = torch.linalg.solve(matrix.double(), right.double())
    found = conjugate_gradients(matrix, right).double()
    reached = torch.einsum("bci,bchw->bihw", found - exact, shown.double())
    assert reached.abs().max() < 1e-4


def test_conjugate_gradients_solve() -> None:
    drawn = torch.Generator().manual_seed(0)
    half = torch.randn(2, 30, 30, generator=drawn, dtype=torch.float64)
    matrix = half @ half.transpose(1, 2) + torch.eye(30)
    right = torch.randn(2, 30, 1, generator=drawn, dtype=torch.float64)
    torch.testing.assert_close(
        conjugate_gradients(matrix, right), torch.linalg.solve(matrix, right), atol=1e-9, rtol=0
    )


def test_several_objects_are_solved_on_several_threads() -> None:
    """A solver of PyTorch fails at this on some CPUs, though not for one object or one thread."""
    drawn = torch.Generator().manual_seed(0)
    shown = torch.randn(5, 273, 20, 30, generator=drawn)
    masks = torch.rand(5, 320, 480, generator=drawn).round()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        sums = frame_sums(shown, masks)
        summary = torch.stack([sums, sums], 1)
        found = [likeness(summary, shown) for _ in range(20)]
    finally:
        torch.set_num_threads(threads)
    exact = torch.cat(
        [likeness(one[None].double(), x[None]) for one, x in zip(summary, shown, strict=True)]
    )
    for each in found:
        torch.testing.assert_close(each.double(), exact.double(), atol=1e-4, rtol=0)


def test_a_summary_of_nothing_is_solved_too() -> None:
    empty = torch.zeros(1, 2, C, C + 1)
    assert likeness(empty, torch.randn(1, C, H, W)).abs().max() == 0
    zero = conjugate_gradients(torch.eye(C)[None], torch.zeros(1, C, 1))
    assert zero.abs().max() == 0


def given(flags: list[bool], earlier: list[int], shows: list[bool]) -> dict[str, torch.Tensor]:
    return {
        "given": torch.tensor(flags),
        "earlier": torch.tensor(earlier),
        "shows": torch.tensor(shows),
    }


def test_frames_fade_given_ones_do_not_and_absent_objects_change_nothing() -> None:
    one, two, three = (frame_sums(*scene(seed)) for seed in (1, 2, 3))
    empty = torch.zeros(2, 2, C, C + 1, dtype=torch.float64)
    first = with_frame(empty, one, **given([True, False], [0, 0], [True, True]))
    torch.testing.assert_close(first, torch.stack([one, one], 1))
    second = with_frame(first, two, **given([False, False], [1, 1], [True, False]))
    torch.testing.assert_close(second[0, 0], one[0])
    torch.testing.assert_close(second[0, 1], one[0] + RATE * (two[0] - one[0]))
    torch.testing.assert_close(second[1], first[1])
    third = with_frame(second, three, **given([True, True], [1, 1], [True, False]))
    torch.testing.assert_close(third[0, 0], (one[0] + three[0]) / 2)
    torch.testing.assert_close(third[0, 1], second[0, 1] + RATE * (three[0] - second[0, 1]))
    torch.testing.assert_close(third[1], second[1])


def test_rivals_are_the_other_objects_of_the_same_video() -> None:
    own = torch.tensor([0.2, 0.9, -3.0, 5.0]).reshape(4, 1, 1)
    found = beside_rivals(own, torch.tensor([0, 0, 0, 1])).reshape(4, 2)
    expected = torch.tensor([[0.2, 0.9], [0.9, 0.2], [-1.0, 0.9], [2.0, 0.0]])
    torch.testing.assert_close(found, expected)


def state_with(frames: int) -> MemoryState:
    state = MemoryState.empty(2, 3, GRID, key=KEY, value=VALUE, update_key=UPDATE, summary=C)
    for new in templates(frames, batch=2):
        shown, masks = scene(new.frame)
        evidence = torch.stack([masks.mean((1, 2)), torch.ones(2)], 1).float()
        new = replace(new, evidence=evidence, sums=frame_sums(shown, masks).float())
        state, _ = write(state, new, Oldest(), pin=new.frame == 0)
    return state


def test_a_write_puts_the_frame_into_the_summary() -> None:
    sums = [frame_sums(*scene(seed)).float() for seed in (0, 1)]
    found = state_with(2).summary
    assert found is not None
    torch.testing.assert_close(found[:, 0], sums[0])
    torch.testing.assert_close(found[:, 1], sums[0] + RATE * (sums[1] - sums[0]))


def test_a_better_mask_of_the_only_frame_replaces_the_first_one() -> None:
    state, (shown, masks) = state_with(1), scene(7)
    new = replace(
        templates(1, batch=2)[0],
        evidence=torch.tensor([[0.5, 1.0]] * 2),
        sums=frame_sums(shown, masks).float(),
    )
    after, _ = write(state, new, Oldest(), pin=True)
    assert after.summary is not None
    torch.testing.assert_close(after.summary, torch.stack([new.sums, new.sums], 1))


def test_a_likeness_that_is_no_number_is_none() -> None:
    own = torch.tensor([float("nan"), 0.4]).reshape(2, 1, 1)
    found = beside_rivals(own, torch.zeros(2, dtype=torch.int64)).reshape(2, 2)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.4], [0.4, 0.0]]))


def test_its_size_is_constant_and_it_goes_with_its_entry() -> None:
    short, long = state_with(1), state_with(12)
    assert long.nbytes == short.nbytes
    assert long.summary is not None
    swapped = long.select(torch.tensor([1, 0])).summary
    assert swapped is not None
    torch.testing.assert_close(swapped, long.summary.flip(0))
    joined = concat([long, short.grown(2)]).summary
    assert joined is not None
    assert len(joined) == 4
    torch.testing.assert_close(joined[:2], long.summary)


def test_networks_without_one_have_none() -> None:
    state = MemoryState.empty(1, 2, GRID, key=KEY, value=VALUE, update_key=UPDATE)
    assert state.summary is None
    assert "summary" not in state.tensors()


@pytest.mark.parametrize("size", [0.4, 0.6])
def test_an_object_of_less_than_half_a_position_is_absent(size: float) -> None:
    state, (shown, masks) = state_with(1), scene(5)
    evidence = torch.tensor([[size / (H * W), 1.0]] * 2)
    sums = frame_sums(shown, masks).float()
    new = replace(templates(2, batch=2)[1], evidence=evidence, sums=sums)
    after, _ = write(state, new, Oldest())
    assert after.summary is not None
    assert state.summary is not None
    assert torch.equal(after.summary, state.summary) == (size < 0.5)
