"""Pure loss functions of segmentation.

All work on merged log-probabilities `"b n height width"` (background first, then objects, from
soft aggregation) and on label maps `"b height width"` in which 255 is void: no loss is taken there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from stremn.errors import StremnError
from stremn.media.mask_codes import VOID


def cross_entropy(
    log_probabilities: Float[Tensor, "b n height width"],
    labels: Integer[Tensor, "b height width"],
) -> Float[Tensor, ""]:
    """Return the mean of -log p(label) over the pixels that are not void; 0 if all are void."""
    losses, known = _pixel_losses(log_probabilities, labels)
    return losses.sum() / known.sum().clamp(min=1)


def bootstrapped_cross_entropy(
    log_probabilities: Float[Tensor, "b n height width"],
    labels: Integer[Tensor, "b height width"],
    fraction: float,
) -> Float[Tensor, ""]:
    """Return the mean cross entropy of the hardest `fraction` of each image's pixels, in (0, 1].

    Each image's share counts its known pixels only, at least one; images without any are left out.
    """
    if not 0 < fraction <= 1:
        raise StremnError(f"The bootstrapped fraction must lie in (0, 1], got {fraction}.")
    if fraction == 1:
        return cross_entropy(log_probabilities, labels)
    losses, known = _pixel_losses(log_probabilities, labels)
    kept, count = [], 0
    for image_losses, image_known in zip(losses.flatten(1), known.flatten(1), strict=True):
        pixels = int(image_known.sum())
        if pixels:
            hardest = max(1, round(fraction * pixels))
            kept.append(image_losses.topk(hardest).values.sum())
            count += hardest
    if not kept:
        return losses.sum()  # every pixel is void: zero, with a graph
    return torch.stack(kept).sum() / count


def bootstrap_fraction(progress: float, start: float, end: float, final: float) -> float:
    """Return the fraction of pixels kept at `progress` of the training, both in [0, 1].

    All pixels until `start`, then linearly fewer down to `final` at `end`.
    """
    if end <= start:
        return final if progress >= end else 1.0
    ramp = min(max((progress - start) / (end - start), 0.0), 1.0)
    return 1.0 + ramp * (final - 1.0)


def dice_loss(
    log_probabilities: Float[Tensor, "b n height width"],
    labels: Integer[Tensor, "b height width"],
    present: Bool[Tensor, "b n-1"] | None = None,
) -> Float[Tensor, ""]:
    """Return 1 - (2 sum p y + 1) / (sum p + sum y + 1), a mean over the objects (not the
    background).

    `present` leaves out objects that the image does not have (padding). An object that is there
    but hidden counts: predicting any of it costs.
    """
    probabilities = log_probabilities.float().exp()[:, 1:]
    known = (labels != VOID).unsqueeze(1)
    objects = probabilities.shape[1]
    truth = labels.long().unsqueeze(1) == torch.arange(1, objects + 1, device=labels.device).view(
        1, -1, 1, 1
    )
    probabilities = probabilities * known
    overlap = (probabilities * truth).flatten(2).sum(-1)
    total = probabilities.flatten(2).sum(-1) + truth.flatten(2).sum(-1)
    losses = 1 - (2 * overlap + 1) / (total + 1)
    if present is None:
        return losses.mean()
    return (losses * present).sum() / present.sum().clamp(min=1)


def lovasz_softmax(
    log_probabilities: Float[Tensor, "b n height width"],
    labels: Integer[Tensor, "b height width"],
) -> Float[Tensor, ""]:
    """Return Lovasz extension of 1 - J, a mean over the classes present in each image.

    Source: Berman, Rannen Triki, Blaschko (CVPR 2018), equations 8, 9 and 11.
    """
    probabilities = log_probabilities.float().exp().flatten(2)
    losses = []
    for image, truth in zip(probabilities, labels.long().flatten(1), strict=True):
        known = truth != VOID
        for label in truth[known].unique().tolist():
            foreground = (truth[known] == label).to(image.dtype)
            losses.append(_lovasz_hinge_of_errors(image[label][known], foreground))
    if not losses:
        return probabilities.sum() * 0.0
    return torch.stack(losses).mean()


def _lovasz_hinge_of_errors(
    probabilities: Float[Tensor, " pixels"], truth: Float[Tensor, " pixels"]
) -> Float[Tensor, ""]:
    errors, order = (truth - probabilities).abs().sort(descending=True)
    sorted_truth = truth[order]
    # Jaccard loss when the first i pixels are wrong (equation 8, evaluated along the order).
    positives = sorted_truth.sum()
    intersection = positives - sorted_truth.cumsum(0)
    union = positives + (1 - sorted_truth).cumsum(0)
    jaccard_loss = 1 - intersection / union
    steps = torch.cat((jaccard_loss[:1], jaccard_loss[1:] - jaccard_loss[:-1]))
    return errors @ steps


def _pixel_losses(
    log_probabilities: Float[Tensor, "b n height width"], labels: Integer[Tensor, "b height width"]
) -> tuple[Float[Tensor, "b height width"], Bool[Tensor, "b height width"]]:
    """Return -log p(label) of each pixel, zero where void, and which pixels are known."""
    losses = F.nll_loss(
        log_probabilities.float(), labels.long(), ignore_index=VOID, reduction="none"
    )
    return losses, labels != VOID
