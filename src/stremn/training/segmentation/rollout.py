"""Section 4.1.1: the roll-out over training clips, the loss, and a probe of the memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stremn.data.clips.clip import ClipBatch
from stremn.errors import StremnError
from stremn.media.mask_codes import VOID
from stremn.memory.choices import Choice, UpdatePolicy
from stremn.memory.policies import Learned
from stremn.moved import earlier_arguments, earlier_fields, moved_names
from stremn.networks.defaults import PAPER
from stremn.networks.model import Query, STReMN
from stremn.segmentation.aggregation import one_hot, with_given
from stremn.segmentation.tracks import Track
from stremn.training.loss_report import LossReport
from stremn.training.segmentation.losses import (
    bootstrap_fraction,
    bootstrapped_cross_entropy,
    dice_loss,
    lovasz_softmax,
)


@dataclass(frozen=True)
class ClipRollout:
    """Results of a roll-out: one entry per frame from the second on.

    `log_probabilities[i]` is of frame i + 1; `targets` are label maps in which objects not yet
    given are background; `choices` are what the policy decided at every frame memorised.
    """

    log_probabilities: list[Float[Tensor, "b c height width"]]
    targets: list[Int[Tensor, "b height width"]]
    choices: list[Choice]
    track: Track


@earlier_arguments(slots="memory_slots")
def rollout(
    model: STReMN, batch: ClipBatch, *, memory_slots: int, policy: UpdatePolicy, growth: int = 0
) -> ClipRollout:
    """Segment clips frame by frame with the same steps as a session (Section 4.1.1).

    An object's true mask is read at the frame where it is given, and pinned; from there on the
    model sees its own soft masks. Raises StremnError on a clip without an object at its start.
    """
    videos, length = batch.frames.shape[:2]
    objects = batch.given.shape[1]
    size = (batch.frames.shape[-2], batch.frames.shape[-1])
    if not bool((batch.given == 0).any(dim=1).all()):
        raise StremnError(
            "Every clip needs an object given at its first frame; `given` is "
            f"{batch.given.tolist()}."
        )
    queries = _encode_clip(model, batch)
    track: Track | None = None
    log_probabilities, targets, choices = [], [], []
    for t in range(length):
        query = queries[t]
        truth = one_hot(_known(batch, t), objects)
        current = truth
        if track is not None:
            logp = track.recall(model, query, videos, objects)
            log_probabilities.append(logp)
            targets.append(_known(batch, t, before=True))
            if t == length - 1:  # nothing will read what would be written now
                break
            given = batch.given == t
            current = with_given(logp.exp(), truth[:, 1:], given) if given.any() else logp.exp()
            track, choice = track.memorize(model, query, current, frame=t, policy=policy)
            choices.append(choice)
        video, column = torch.nonzero(batch.given == t, as_tuple=True)
        if len(video):
            new = Track.empty(model, video, column + 1, memory_slots, size, growth)
            new, _ = new.memorize(model, query, current, frame=t, policy=policy, pin=True)
            track = new if track is None else track.join(new)
    assert track is not None  # some object is given at frame 0
    return ClipRollout(log_probabilities, targets, choices, track)


def _encode_clip(model: STReMN, batch: ClipBatch) -> list[Query]:
    """Encode all frames in one call: queries do not depend on the memory.

    Without gradients frame by frame, so that validation on many clips does not need more memory
    than training on a few.
    """
    videos, length = batch.frames.shape[:2]
    flat = batch.frames.transpose(0, 1).flatten(0, 1)  # (t b) 3 height width
    frames = (flat.float() / 255).contiguous(memory_format=torch.channels_last)
    if not torch.is_grad_enabled():
        return [model.encode_query(at_once) for at_once in frames.split(videos)]
    every = model.encode_query(frames)
    key, value = every.key.split(videos), every.value.split(videos)
    skip8, skip4 = [[None] * length if skip is None else skip.split(videos) for skip in every.skips]
    stem, features = every.stem.split(videos), every.features.split(videos)
    shown = [None] * length if every.shown is None else every.shown.split(videos)
    at = frames.split(videos)
    return [
        Query(key[t], value[t], (skip8[t], skip4[t]), at[t], stem[t], features[t], shown[t])
        for t in range(length)
    ]


def _known(batch: ClipBatch, t: int, *, before: bool = False) -> Int[Tensor, "b height width"]:
    """Return label maps of frame t; objects not given by then (or `before`) are background."""
    labels = batch.labels[:, t].long()
    for column in range(batch.given.shape[1]):
        given = batch.given[:, column]
        later = (given >= t if before else given > t) | (given < 0)
        labels = labels.masked_fill((labels == column + 1) & later[:, None, None], 0)
    return labels


@earlier_fields(slots="memory_slots")
@dataclass(frozen=True)
class ClipLoss:
    """Cross entropy on merged log-probabilities over all frames but the first, plus overlap.

    `dice` and `lovasz` are the weights of two losses on the overlap of regions (not the paper's).
    Dice is a mean over all objects of a clip; one that is given later adds nothing before.

    `memory_slots` and `policy` are the memory's during training; `policy` None is the model's
    learned rule. `bootstrap` is the share of hardest pixels kept at the end (1 keeps all, the
    paper's plain cross entropy), reached linearly between the two `ramp` points of progress.
    """

    memory_slots: int = PAPER.memory_slots
    policy: UpdatePolicy | None = None
    growth: int = 0
    dice: float = 0.0
    lovasz: float = 0.0
    bootstrap: float = 1.0
    ramp: tuple[float, float] = (0.2, 0.7)

    def __call__(self, model: STReMN, batch: ClipBatch, progress: float) -> LossReport:
        """Return the loss of a batch of clips at `progress` in [0, 1] of the training."""
        policy = self.policy if self.policy is not None else model.policies["learned"]
        clip = rollout(
            model, batch, memory_slots=self.memory_slots, policy=policy, growth=self.growth
        )
        fraction = bootstrap_fraction(progress, *self.ramp, self.bootstrap)
        frames = list(zip(clip.log_probabilities, clip.targets, strict=True))
        entropy = torch.stack([bootstrapped_cross_entropy(p, y, fraction) for p, y in frames])
        loss = entropy.mean()
        scalars = {"cross_entropy": float(loss.detach()), **memory_scalars(clip)}
        if self.dice:
            overlap = torch.stack([dice_loss(p, y, batch.given >= 0) for p, y in frames]).mean()
            loss = loss + self.dice * overlap
            scalars["dice"] = float(overlap.detach())
        if self.lovasz:
            hinge = torch.stack([lovasz_softmax(p, y) for p, y in frames]).mean()
            loss = loss + self.lovasz * hinge
            scalars["lovasz"] = float(hinge.detach())
        scalars["J_last"] = last_frame_j(clip, batch)
        return LossReport(loss, scalars)


@torch.no_grad()
def memory_scalars(clip: ClipRollout) -> dict[str, float]:
    """Return statistics of evictions: whether the policy could learn from a batch of clips.

    Evictions per entry (a write with more than one slot to choose from), and the entropy of the
    softmax over the scores at those writes, as a share of a uniform choice's.
    """
    evictions, entropies = 0, []
    for choice in clip.choices:
        open_slots = (~choice.scores.isnan()).sum(1)
        contested = (open_slots > 1) & (choice.replace.sum(1) > 0.5)
        evictions += int(contested.sum())
        scores = choice.scores[contested].nan_to_num(-torch.inf)
        if len(scores):
            p = scores.softmax(1)
            bits = -(p * p.clamp(min=1e-12).log()).sum(1) / open_slots[contested].log()
            entropies.append(bits.mean())
    mean = float(torch.stack(entropies).mean()) if entropies else 0.0
    return {"evictions": evictions / len(clip.track.video), "policy_entropy": mean}


def last_frame_j(clip: ClipRollout, batch: ClipBatch) -> float:
    """Return the mean J (intersection over union) of all objects in the clips' last frame."""
    return float(last_frame_scores(clip, batch).nanmean())


@torch.no_grad()
def last_frame_scores(clip: ClipRollout, batch: ClipBatch) -> Float[Tensor, "b n"]:
    """Return J of every object in each clip's last frame; NaN where a clip gives none before
    that."""
    predicted, truth = clip.log_probabilities[-1].max(1).indices, clip.targets[-1]
    predicted = predicted.masked_fill(truth == VOID, VOID)
    scores = []
    for column in range(batch.given.shape[1]):
        ours, theirs = predicted == column + 1, truth == column + 1
        union = (ours | theirs).sum((1, 2))
        j = (ours & theirs).sum((1, 2)) / union.clamp(min=1)
        j = torch.where(union == 0, 1.0, j)
        given, last = batch.given[:, column], batch.frames.shape[1] - 1
        scores.append(j.masked_fill((given < 0) | (given == last), torch.nan))
    return torch.stack(scores, dim=1)


@torch.no_grad()
@earlier_arguments(slots="memory_slots")
def probe(
    model: STReMN, batch: ClipBatch, *, memory_slots: int = PAPER.memory_slots
) -> dict[str, float]:
    """Test whether the model reads its memory: J of the last frame with three memories.

    Of each clip, the first object that is given in frame 0 is looked for.
    right: the clip's own first frame; wrong: another clip's; empty: the own first frame under an
    empty mask. A model that has learned to read has a high first number and two low ones; one
    that segments whatever stands out has three equal ones.
    """
    ends = batch.labels[:, [0, -1]]
    label = (batch.given == 0).int().argmax(1) + 1  # of the first object given in frame 0
    alone = (ends == label[:, None, None, None]).to(torch.uint8).masked_fill(ends == VOID, VOID)
    single = ClipBatch(batch.frames[:, [0, -1]], alone, torch.zeros_like(batch.given[:, :1]))
    videos = len(single.given)
    queries = _encode_clip(model, single)
    entries = torch.arange(videos, device=batch.frames.device)
    size = (batch.frames.shape[-2], batch.frames.shape[-1])
    truth = one_hot((single.labels[:, 0] == 1).long(), 1)
    scores = {}
    for name, order, masks in (
        ("right", entries, truth),
        ("wrong", entries.roll(1), truth),
        ("empty", entries, torch.cat([torch.ones_like(truth[:, :1]), 0 * truth[:, 1:]], 1)),
    ):
        track = Track.empty(model, entries, torch.ones_like(entries), memory_slots, size)
        track, _ = track.memorize(
            model, queries[0].take(order), masks[order], frame=0, policy=Learned().eval()
        )
        logp = track.recall(model, queries[1], videos, 1)
        view = ClipRollout([logp], [single.labels[:, 1].long()], [], track)
        scores[f"probe_{name}"] = last_frame_j(view, single)
    return scores


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
