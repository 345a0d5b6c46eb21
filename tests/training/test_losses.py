import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stremn.errors import StremnError
from stremn.media.mask_codes import VOID
from stremn.training.loss_report import LossReport
from stremn.training.segmentation.losses import (
    bootstrap_fraction,
    bootstrapped_cross_entropy,
    cross_entropy,
    dice_loss,
    lovasz_softmax,
)


def example(seed: int = 0, b: int = 2, n: int = 3, side: int = 5) -> tuple[Tensor, Tensor]:
    """Random log-probabilities (float64) and labels, some of them void."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(b, n, side, side, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, n, (b, side, side), generator=generator)
    labels[torch.rand(b, side, side, generator=generator) < 0.2] = VOID
    return logits.log_softmax(1), labels


def pixel_losses(log_p: Tensor, labels: Tensor) -> list[list[float]]:
    """-log p(label) of every known pixel, image by image."""
    result = []
    for image, truth in zip(log_p, labels, strict=True):
        rows = []
        for y in range(truth.shape[0]):
            for x in range(truth.shape[1]):
                if truth[y, x] != VOID:
                    rows.append(-float(image[int(truth[y, x]), y, x]))
        result.append(rows)
    return result


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_cross_entropy_is_the_mean_over_known_pixels(dtype: torch.dtype) -> None:
    log_p, labels = example()
    rows = [loss for image in pixel_losses(log_p, labels) for loss in image]
    expected = sum(rows) / len(rows)
    assert float(cross_entropy(log_p, labels.to(dtype))) == pytest.approx(expected, rel=1e-6)


def test_void_everywhere_is_zero_and_differentiable() -> None:
    log_p, labels = example()
    log_p.requires_grad_()
    labels[:] = VOID
    for loss in (
        cross_entropy(log_p, labels),
        bootstrapped_cross_entropy(log_p, labels, 0.3),
        lovasz_softmax(log_p, labels),
    ):
        (gradient,) = torch.autograd.grad(loss, log_p)
        assert loss.item() == 0
        assert not gradient.any()


@pytest.mark.parametrize("fraction", [0.01, 0.15, 0.5, 0.99])
def test_bootstrapped_keeps_the_hardest_of_each_image(fraction: float) -> None:
    log_p, labels = example()
    kept = []
    for image in pixel_losses(log_p, labels):
        kept += sorted(image)[-max(1, round(fraction * len(image))) :]
    expected = sum(kept) / len(kept)
    assert float(bootstrapped_cross_entropy(log_p, labels, fraction)) == pytest.approx(
        expected, rel=1e-6
    )


def test_bootstrapped_with_all_pixels_is_cross_entropy() -> None:
    log_p, labels = example()
    assert torch.equal(bootstrapped_cross_entropy(log_p, labels, 1.0), cross_entropy(log_p, labels))


def test_bootstrapped_skips_an_image_that_is_all_void() -> None:
    log_p, labels = example()
    labels[1] = VOID
    alone = bootstrapped_cross_entropy(log_p[:1], labels[:1], 0.3)
    assert torch.equal(bootstrapped_cross_entropy(log_p, labels, 0.3), alone)


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5])
def test_bootstrapped_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(StremnError, match=r"fraction must lie in \(0, 1\], got"):
        bootstrapped_cross_entropy(*example(), fraction)


def test_bootstrap_fraction_falls_linearly() -> None:
    values = [bootstrap_fraction(p, 0.2, 0.6, 0.2) for p in (0.0, 0.2, 0.4, 0.6, 1.0)]
    assert values == pytest.approx([1, 1, 0.6, 0.2, 0.2])
    assert bootstrap_fraction(0.5, 0.5, 0.5, 0.3) == 0.3
    assert bootstrap_fraction(0.4, 0.5, 0.5, 0.3) == 1.0


def dice_oracle(log_p: Tensor, labels: Tensor) -> list[list[float]]:
    result = []
    for image, truth in zip(log_p.exp(), labels, strict=True):
        row = []
        for n in range(1, image.shape[0]):
            overlap = mass = size = 0.0
            for y in range(truth.shape[0]):
                for x in range(truth.shape[1]):
                    if truth[y, x] == VOID:
                        continue
                    p, t = float(image[n, y, x]), float(truth[y, x] == n)
                    overlap, mass, size = overlap + p * t, mass + p, size + t
            row.append(1 - (2 * overlap + 1) / (mass + size + 1))
        result.append(row)
    return result


def test_dice_equals_its_definition() -> None:
    log_p, labels = example()
    rows = dice_oracle(log_p, labels)
    mean = sum(map(sum, rows)) / 4
    assert float(dice_loss(log_p, labels)) == pytest.approx(mean, rel=1e-5)
    present = torch.tensor([[True, False], [True, True]])
    some = (rows[0][0] + rows[1][0] + rows[1][1]) / 3
    assert float(dice_loss(log_p, labels, present)) == pytest.approx(some, rel=1e-5)


def test_dice_of_the_truth_is_zero_and_of_a_hidden_object_counts_false_pixels() -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    labels[:, :2] = 1
    truth = torch.stack([labels == 0, labels == 1], 1).double().clamp(1e-12, 1).log()
    assert float(dice_loss(truth, labels)) == pytest.approx(0, abs=1e-6)
    hidden = torch.zeros_like(labels)
    assert float(dice_loss(truth, hidden)) == pytest.approx(1 - 1 / 9, rel=1e-6)


def jaccard_loss_of_error_set(wrong: set[int], truth: list[bool]) -> float:
    """1 - intersection / union if exactly the pixels of `wrong` are misclassified."""
    predicted = [t != (i in wrong) for i, t in enumerate(truth)]
    union = sum(p or t for p, t in zip(predicted, truth, strict=True))
    both = sum(p and t for p, t in zip(predicted, truth, strict=True))
    return 1 - both / union if union else 0.0


def lovasz_oracle(errors: list[float], truth: list[bool]) -> float:
    """The Lovasz extension by its definition: sum of m_pi(i) [f(pi_1..pi_i) - f(pi_1..pi_i-1)]."""
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    total, before, chosen = 0.0, 0.0, set()
    for i in order:
        chosen.add(i)
        now = jaccard_loss_of_error_set(chosen, truth)
        total += errors[i] * (now - before)
        before = now
    return total


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_lovasz_equals_the_extension_by_definition(seed: int) -> None:
    log_p, labels = example(seed, b=1, n=3, side=4)
    known = labels[0] != VOID
    values = []
    for n in sorted(set(labels[0][known].tolist())):
        truth = (labels[0][known] == n).tolist()
        p = log_p.exp()[0, n][known].tolist()
        errors = [1 - a if t else a for a, t in zip(p, truth, strict=True)]
        values.append(lovasz_oracle(errors, truth))
    assert float(lovasz_softmax(log_p, labels)) == pytest.approx(
        sum(values) / len(values), rel=1e-4
    )


def test_lovasz_of_hard_labels_is_one_minus_j() -> None:
    truth = torch.tensor([[[1, 1, 0, 0]]])
    predicted = torch.tensor([[[1, 0, 1, 0]]])
    log_p = torch.stack([predicted == 0, predicted == 1], 1).double().clamp(1e-9, 1).log()
    assert float(lovasz_softmax(log_p, truth)) == pytest.approx(1 - 1 / 3, rel=1e-6)


@pytest.mark.parametrize(
    "loss",
    [cross_entropy, dice_loss, lovasz_softmax, lambda p, y: bootstrapped_cross_entropy(p, y, 0.4)],
)
def test_void_pixels_get_no_gradient_and_descent_helps(loss) -> None:
    log_p, labels = example()
    logits = log_p.clone().requires_grad_()
    before = loss(logits.log_softmax(1), labels)
    (gradient,) = torch.autograd.grad(before, logits)
    assert not gradient.movedim(1, -1)[labels == VOID].any()
    with torch.no_grad():
        after = loss((logits - 0.1 * gradient).log_softmax(1), labels)
    assert after.item() < before.item()


def test_report_needs_a_scalar() -> None:
    with pytest.raises(StremnError, match=r"must be a scalar, got shape \(2,\)"):
        LossReport(torch.zeros(2))
    assert LossReport(torch.tensor(math.pi)).scalars == {}
