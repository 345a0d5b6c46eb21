"""Section 4.1: each object's own mask, merged to one label map by STM's soft aggregation.

A pixel's distribution is over *layers*: 0 is the background, n the n-th object.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor
from torch.nn import functional as F

from stremn.media.masks import LabelMap
from stremn.networks.working_size import WorkingSize

ABSENT = -1e4
"""Logit of an object that is not there, so that its probability is zero."""

BOUND = 16.118
"""Logit of 1 - 1e-7: what probabilities are clamped to before they are merged."""


def upsampled(
    logits: Float[Tensor, "n 1 h4 w4"], frames: Float[Tensor, "_ 3 height width"]
) -> Float[Tensor, "n height width"]:
    """Upsample logits at stride 4 to the size of `frames`, in float32."""
    size = frames.shape[-2:]
    return F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)[:, 0]


def scatter(
    logits: Float[Tensor, "n height width"],
    video: Int[Tensor, " n"],
    label: Int[Tensor, " n"],
    videos: int,
    objects: int,
) -> Float[Tensor, "videos objects height width"]:
    """Put entries' logits at [video, label - 1]; where there is no entry, `ABSENT`."""
    dense = logits.new_full((videos, objects, *logits.shape[1:]), ABSENT)
    return dense.index_put((video, label - 1), logits)


def aggregate(
    logits: Float[Tensor, "b o height width"],
) -> Float[Tensor, "b c height width"]:
    """Merge each object's logit into one distribution per pixel (STM's soft aggregation).

    p_0 = prod(1 - p_i), every p clamped to [1e-7, 1 - 1e-7]; then a softmax over the logits
    log(p / (1 - p)) of background and objects. Returns log-probabilities, background first.
    """
    background = F.logsigmoid(-logits).sum(dim=1, keepdim=True)  # log p_0
    background = background.clamp(-BOUND, -1e-7)
    odds = background - torch.log(-torch.expm1(background))  # log(p_0 / (1 - p_0))
    objects = torch.where(logits <= ABSENT, logits, logits.clamp(-BOUND, BOUND))
    return torch.cat([odds, objects], dim=1).log_softmax(dim=1)


def aggregate_fast(logits: Float[Tensor, "b o height width"]) -> Float[Tensor, "b c height width"]:
    """Return `aggregate(logits).exp()` without logarithms and gradients.

    A softmax over log(p / (1 - p)) is each one's odds p / (1 - p) by the sum of all odds. With one
    object the odds of object and background are exp(l) and exp(-l): a sigmoid of 2 l.
    """
    logits = logits.clamp(-BOUND, BOUND)
    if logits.shape[1] == 1:
        own = logits.mul_(2).sigmoid_()
        return torch.cat([1 - own, own], dim=1)
    odds = logits.exp_()
    background = (odds + 1).reciprocal_().prod(dim=1, keepdim=True)  # prod(1 - p_i)
    background = background.clamp_(1e-7, 1 - 1e-7)
    odds = torch.cat([background / (1 - background), odds], dim=1)
    return odds.div_(odds.sum(dim=1, keepdim=True))


def likeliest(probabilities: Float[Tensor, "c height width"]) -> Int32[np.ndarray, "height width"]:
    """Return the likeliest layer of every pixel: 0 is the background.

    (`argmax` says the same; on CPUs it takes fifteen times as long.)
    """
    return probabilities.max(0).indices.to(torch.int32).cpu().numpy()


def with_given(
    probabilities: Float[Tensor, "b c height width"],
    truth: Float[Tensor, "b o height width"],
    given: Bool[Tensor, "b o"],
) -> Float[Tensor, "b c height width"]:
    """Replace the probabilities of objects that are `given` by their true masks.

    Args:
        probabilities: probabilities of background and objects, c = 1 + o.
        truth: true masks in [0, 1]; those of objects not `given` are ignored.
        given: which objects of each video have a true mask in this frame.
    """
    mask = given[:, :, None, None]
    truth = truth * mask
    own = probabilities[:, 1:] * mask
    background = probabilities[:, :1] + own.sum(1, keepdim=True)
    rest = torch.cat([background, probabilities[:, 1:] - own], 1)
    return rest * (1 - truth.sum(1, keepdim=True).clamp(0, 1)) + F.pad(truth, (0, 0, 0, 0, 1, 0))


def with_label_map(
    probabilities: Float[Tensor, "1 c height width"],
    given: LabelMap,
    ids: Sequence[int],
    size: WorkingSize,
) -> Float[Tensor, "1 c2 height width"]:
    """Replace the probabilities of the objects of a label map by that map.

    Args:
        probabilities: of background and the first objects of `ids`.
        given: the label map, at the video's own size.
        ids: of all objects, c2 = 1 + len(ids); those of `given` are among them.
        size: from the video's own size to that of `probabilities`.
    """
    truth = probabilities.new_zeros(1, len(ids), *probabilities.shape[2:])
    known = torch.zeros(1, len(ids), dtype=torch.bool, device=truth.device)
    for item in given.ids:  # one at a time: at the video's own size they are large
        place = ids.index(item)
        layer = (given.labels == item).astype(np.float32)
        truth[:, place] = torch.from_numpy(size.inward_shares(layer[None]))
        known[:, place] = True
    new = len(ids) + 1 - probabilities.shape[1]
    return with_given(F.pad(probabilities, (0, 0, 0, 0, 0, new)), truth, known)


def without_layers(
    probabilities: Float[Tensor, "1 c height width"], kept: Sequence[int]
) -> Float[Tensor, "1 c2 height width"]:
    """Return the probabilities of the objects `kept` (from 0); the background takes the rest."""
    rest = probabilities[:, [place + 1 for place in kept]]
    return torch.cat([1 - rest.sum(1, keepdim=True), rest], 1)


def renumbered(
    layers: Int32[np.ndarray, "height width"], kept: Sequence[int]
) -> Int32[np.ndarray, "height width"]:
    """Return a map of layers in which only the objects `kept` (from 0) are left, in their order."""
    new = np.zeros(max(int(layers.max()), *kept) + 2, np.int32)
    new[[place + 1 for place in kept]] = range(1, len(kept) + 1)
    return new[layers]


def given_up(
    probabilities: Float[Tensor, "1 c height width"],
    layers: Int32[np.ndarray, "height width"],
    pixels: Bool[np.ndarray, "height width"],
) -> Float[Tensor, "1 c height width"]:
    """Move the probability of each pixel's layer to the background at `pixels`."""
    rows, columns = np.nonzero(pixels & (layers > 0))
    layer = layers[rows, columns]
    result = probabilities.clone()
    result[0, 0, rows, columns] += result[0, layer, rows, columns]
    result[0, layer, rows, columns] = 0
    return result


def object_masks(
    probabilities: Float[Tensor, "videos c height width"],
    video: Int[Tensor, " n"],
    label: Int[Tensor, " n"],
) -> Float[Tensor, "n 2 height width"]:
    """Return for each entry its object's soft mask and the union of the others'."""
    own = probabilities[video, label]
    foreground = probabilities[:, 1:].sum(dim=1)[video]
    return torch.stack([own, (foreground - own).clamp(0, 1)], dim=1)


def one_hot(
    labels: Int[Tensor, "b height width"], objects: int
) -> Float[Tensor, "b c height width"]:
    """Return label maps 0..objects as probabilities of background and objects; void is 0."""
    channels = torch.arange(objects + 1, device=labels.device).reshape(1, -1, 1, 1)
    return (labels[:, None] == channels).float()
