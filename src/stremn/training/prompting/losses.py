"""Loss of the prompt network over simulated prompts and corrections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from stremn.media.finding import Click
from stremn.prompting.network import PromptNetwork
from stremn.prompting.planes import MaskPrompt, Plane, next_click, prompt_planes
from stremn.training.loss_report import LossReport
from stremn.training.prompting.data import PromptBatch


@dataclass(frozen=True)
class PromptLoss:
    """Focal loss and Dice over a first prompt and `rounds` corrections of it.

    Each correction sees the network's own last mask, as in RITM; no gradient flows through it.
    """

    rounds: int = 3
    dice: float = 1.0
    gamma: float = 2.0

    def __call__(self, model: nn.Module, batch: PromptBatch, progress: float) -> LossReport:
        """Return the loss of a batch of pictures."""
        rng = np.random.default_rng(np.random.randint(2**31))  # noqa: NPY002 - seeded each step
        prompts = first_prompts(rng, batch)
        corrections = int(rng.integers(self.rounds + 1))
        return self.with_corrections(cast(PromptNetwork, model), batch, prompts, corrections, rng)

    def with_corrections(
        self,
        network: PromptNetwork,
        batch: PromptBatch,
        prompts: Sequence[MaskPrompt],
        corrections: int,
        rng: np.random.Generator,
    ) -> LossReport:
        """Return the loss over `prompts`, one of each picture, and `corrections` of each."""
        frames = (batch.frames.float() / 255).contiguous(memory_format=torch.channels_last)
        query = network.encode(frames)
        truth, void = batch.truth.cpu().numpy(), batch.void.cpu().numpy()
        losses, scores = [], []
        rounds = 1 + corrections
        for turn in range(rounds):
            drawn = np.stack([prompt_planes(prompt, truth[0].shape) for prompt in prompts])
            planes = torch.from_numpy(drawn).to(frames.device, non_blocking=True)
            logits = network(query, planes)
            losses.append(self._loss(logits, batch.truth, batch.void))
            found = logits.detach().sigmoid().float().cpu().numpy()
            scores.append(_mean_iou(found > 0.5, truth, void))
            if turn < rounds - 1:
                prompts = [
                    corrected(rng, prompt, found[i], truth[i], void[i])
                    for i, prompt in enumerate(prompts)
                ]
        loss = torch.stack(losses).mean()
        return LossReport(loss, {"iou_first": scores[0], f"iou_{rounds}": scores[-1]})

    def _loss(
        self,
        logits: Float[Tensor, "b height width"],
        truth: Bool[Tensor, "b height width"],
        void: Bool[Tensor, "b height width"],
    ) -> Float[Tensor, ""]:
        target, known = truth.float(), (~void).float()
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        weight = (1 - torch.exp(-entropy.detach())) ** self.gamma * known
        # As in RITM's normalized focal loss, hard pixels share a constant total weight.
        count = known.sum((1, 2))
        focal = (entropy * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1e-4)
        plain = (entropy * known).sum((1, 2)) / count.clamp(min=1)
        p = logits.sigmoid() * known
        overlap = 1 - (2 * (p * target).sum((1, 2)) + 1) / (
            p.sum((1, 2)) + (target * known).sum((1, 2)) + 1
        )
        share = weight.sum((1, 2)) / count.clamp(min=1)
        return (plain + focal * share.sqrt() + self.dice * overlap).mean()


def _mean_iou(found: np.ndarray, truth: np.ndarray, void: np.ndarray) -> float:
    both = (found & truth & ~void).sum((1, 2))
    either = ((found | truth) & ~void).sum((1, 2))
    return float((both / np.maximum(either, 1)).mean())


def first_prompts(rng: np.random.Generator, batch: PromptBatch) -> list[MaskPrompt]:
    """Draw the first prompt of each picture; some of them show the other objects."""
    truth, others = batch.truth.cpu().numpy(), batch.others.cpu().numpy()
    return [
        first_prompt(rng, truth[i], others[i] if rng.random() < 0.4 else None)
        for i in range(len(truth))
    ]


def first_prompt(rng: np.random.Generator, truth: Plane, others: Plane | None) -> MaskPrompt:
    """Draw a simulated first prompt: a box, a click, a stroke or a rough mask."""
    kind = rng.choice(["box", "click", "stroke", "rough"], p=[0.42, 0.4, 0.08, 0.10])
    start = MaskPrompt(others=others)
    if kind == "box":
        return replace(start, box=loose_box(rng, truth))
    if kind == "click":
        return replace(start, clicks=(_click_inside(rng, truth),))
    if kind == "stroke":
        points = [_click_inside(rng, truth) for _ in range(int(rng.integers(3, 9)))]
        return replace(start, clicks=tuple(points))
    return replace(start, previous=rough_mask(rng, truth))


def loose_box(rng: np.random.Generator, truth: Plane) -> tuple[float, float, float, float]:
    """Return a simulated box of the object, up to 30 % too large."""
    left, top, width, height = cv2.boundingRect(truth.astype(np.uint8))
    room = rng.choice([0.03, 0.1, 0.3])
    a, b, c, d = rng.uniform(-0.04, room, 4) / np.array([1, 1, 1, 1])
    return (
        left - a * width,
        top - b * height,
        left + width + c * width,
        top + height + d * height,
    )


def _click_inside(rng: np.random.Generator, truth: Plane) -> Click:
    """Return the middle of the object, or some place in it (also near its edge)."""
    depth = cv2.distanceTransform(np.pad(truth.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    if rng.random() < 0.4:
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    else:
        least = rng.uniform(0.0, 0.7) * depth.max()
        ys, xs = np.nonzero(depth > min(least, depth.max() * 0.99))
        pick = int(rng.integers(len(ys)))
        y, x = ys[pick], xs[pick]
    return Click(int(x), int(y), True)


def rough_mask(rng: np.random.Generator, truth: Plane) -> Float[np.ndarray, "height width"]:
    """Return a mask that is wrong at its border, or lacks or adds a part."""
    mask = truth.astype(np.uint8)
    size = 2 * int(rng.integers(1, 2 + int(0.08 * np.sqrt(mask.sum())))) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    change = cv2.dilate if rng.random() < 0.5 else cv2.erode
    mask = change(mask, kernel).astype(np.uint8)
    for _ in range(int(rng.integers(0, 4))):
        ys, xs = np.nonzero(truth)
        pick = int(rng.integers(len(ys)))
        radius = int(rng.uniform(0.1, 0.5) * np.sqrt(truth.sum()))
        cv2.circle(mask, (int(xs[pick]), int(ys[pick])), radius, int(rng.integers(2)), cv2.FILLED)
    return mask.astype(np.float32)


def corrected(
    rng: np.random.Generator,
    prompt: MaskPrompt,
    found: Float[np.ndarray, "height width"],
    truth: Plane,
    void: Plane,
) -> MaskPrompt:
    """Return the prompt with a click on its largest error, and the mask found so far."""
    click = next_click(found > 0.5, truth, void)
    if click is None:
        click = _click_inside(rng, truth)
    shown = None if rng.random() < 0.05 else found
    return replace(prompt, clicks=(*prompt.clicks, click), previous=shown)
