"""Shrinkage and scale-invariant gradient losses against slow loops and known values."""

import math
from itertools import pairwise

import pytest
import torch

from stremn.training.prediction.losses import (
    l1,
    l2,
    scale_invariant_gradient,
    shrinkage_l1,
    shrinkage_l2,
)


def frames(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("loss", "power"), [(shrinkage_l1, 1), (shrinkage_l2, 2)])
@pytest.mark.parametrize(("a", "c"), [(10.0, 0.2), (5.0, 0.4)])
def test_shrinkage_equals_the_published_formula(loss, power, a, c):
    x, y = frames(2, 3, 4), frames(2, 3, 4, seed=1)
    total = 0.0
    for p, q in zip(x.flatten().tolist(), y.flatten().tolist(), strict=True):
        error = abs(p - q)
        total += error**power / (1 + math.exp(a * (c - error)))
    assert float(loss(x, y, a, c)) == pytest.approx(total / x.numel(), rel=1e-12)


def test_an_error_at_the_center_counts_half_and_a_small_one_12_percent():
    y = torch.zeros(1, dtype=torch.float64)
    assert float(shrinkage_l1(y + 0.2, y)) == pytest.approx(0.1)
    assert float(shrinkage_l2(y + 0.2, y)) == pytest.approx(0.02)
    assert float(shrinkage_l1(y + 1e-6, y)) / 1e-6 == pytest.approx(0.1192, abs=1e-4)
    assert float(shrinkage_l1(y + 0.6, y)) == pytest.approx(0.6, rel=0.02)


@pytest.mark.parametrize("loss", [shrinkage_l1, shrinkage_l2])
def test_shrinkage_rises_with_the_error_and_has_the_right_gradient(loss):
    y = torch.zeros(1, dtype=torch.float64)
    values = [float(loss(y + e, y)) for e in torch.linspace(0, 1, 101).tolist()]
    assert all(a < b for a, b in pairwise(values))
    x = frames(3, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: loss(p, frames(3, 5, seed=1)), x)


def test_plain_losses_are_the_means_they_say():
    x, y = torch.tensor([0.0, 1.0]), torch.tensor([0.5, 1.0])
    assert float(l1(x, y)) == 0.25
    assert float(l2(x, y)) == 0.125


def slow_gradient(x, y, epsilon, spacings):
    height, width = x.shape[-2:]

    def g(f, i, j, di, dj):
        if i + di >= height or j + dj >= width:
            return 0.0
        a, b = float(f[i, j]), float(f[i + di, j + dj])
        return (b - a) / (abs(a) + abs(b) + epsilon)

    total = 0.0
    for h in spacings:
        norms = [
            math.hypot(g(x, i, j, h, 0) - g(y, i, j, h, 0), g(x, i, j, 0, h) - g(y, i, j, 0, h))
            for i in range(height)
            for j in range(width)
        ]
        total += sum(norms) / len(norms)
    return total


def test_scale_invariant_gradient_equals_the_loop():
    x, y = frames(9, 11), frames(9, 11, seed=1)
    expected = slow_gradient(x, y, 0.1, (1, 2, 4))
    assert float(scale_invariant_gradient(x, y)) == pytest.approx(expected, rel=1e-6)


def test_spacings_of_half_the_frame_or_more_are_left_out():
    x, y = frames(8, 20), frames(8, 20, seed=1)
    with_all = scale_invariant_gradient(x, y, spacings=(1, 2, 4, 8, 16))
    assert torch.equal(with_all, scale_invariant_gradient(x, y, spacings=(1, 2)))


def test_without_epsilon_the_gradient_ignores_brightness():
    x = frames(2, 16, 16) + 0.1
    assert float(scale_invariant_gradient(x, 0.3 * x, epsilon=0.0)) < 1e-4
    assert float(scale_invariant_gradient(x, x.flip(-1))) > 0.1


def test_default_epsilon_weighs_a_shift_above_noise_on_black():
    square = torch.zeros(1, 32, 32)
    square[:, 8:20, 8:20] = 1
    noisy = square + 0.01 * torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0))
    shifted = square.roll(1, -1)
    ours = [float(scale_invariant_gradient(x, square)) for x in (noisy, shifted)]
    demon = [float(scale_invariant_gradient(x, square, epsilon=1e-3)) for x in (noisy, shifted)]
    assert ours[0] < ours[1]
    assert demon[0] > demon[1]


def test_gradient_loss_is_differentiable_where_frames_agree():
    x = frames(6, 6).requires_grad_()
    scale_invariant_gradient(x, x.detach().clone()).backward()
    assert torch.isfinite(x.grad).all()
