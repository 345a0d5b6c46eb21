"""Section 4.1: objects through a video: a memory for each, masks merged by soft aggregation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor
from torch.nn import functional as F

from stremn.media.masks import Labels
from stremn.memory import operations as memory
from stremn.memory.operations import (
    Choice,
    MemoryState,
    UpdatePolicy,
)
from stremn.networks.model import Query, STReMN
from stremn.networks.windows import CONTEXT, Window, whole, windows_round

ABSENT = -1e4
"""Logit of an object that is not there, so that its share is zero."""

BOUND = 16.118
"""Logit of 1 - 1e-7: what probabilities are clamped to before they are merged."""


@dataclass(frozen=True)
class Track:
    """What is remembered between frames: one batch entry per object.

    `video` and `label` say whose entry it is: the index of the video in the batch, and the
    object's number in that video's label map (1, 2, ...).
    """

    state: MemoryState
    video: Int[Tensor, " n"]
    label: Int[Tensor, " n"]

    def join(self, other: Track) -> Track:
        """Return both tracks' entries in one."""
        return Track(
            memory.concat([self.state, other.state]),
            torch.cat([self.video, other.video]),
            torch.cat([self.label, other.label]),
        )

    def select(self, entries: Int[Tensor, " m"]) -> Track:
        """Return the track of some entries."""
        return Track(self.state.select(entries), self.video[entries], self.label[entries])


def recall(
    model: STReMN, track: Track, query: Query, videos: int, objects: int
) -> Float[Tensor, "videos c height width"]:
    """Segment one frame of each video: log-probabilities of background and `objects` objects.

    c = 1 + objects. Each entry is segmented by itself, at stride 4, then brought to the frame's
    size and merged with the others of its video (see `aggregate`).
    """
    return aggregate(scatter(object_logits(model, track, query), track, videos, objects))


def segment(
    model: STReMN, track: Track, query: Query, windows: Sequence[Window] | None = None
) -> Float[Tensor, "1 c height width"]:
    """Segment one frame of one video: probabilities of background and each entry of `track`.

    The entries are all of that video, in the order of their labels. Equal to `recall(...).exp()`,
    in fewer passes over the pixels. With `windows`, each entry's object is looked for in its
    window alone; the rest of the frame is not it.
    """
    if windows is None:
        return shares(object_logits(model, track, query)[None])
    return shares(upsampled(logits_within(model, track, query, windows), query.frames)[None])


def object_logits(model: STReMN, track: Track, query: Query) -> Float[Tensor, "n height width"]:
    """Segment each entry by itself: its logit at every pixel of the frame."""
    return upsampled(model.recall(track.state, query.take(track.video)), query.frames)


def look(
    model: STReMN,
    track: Track,
    query: Query,
    previous: Int32[np.ndarray, "height width"],
    reach: float,
) -> tuple[Float[Tensor, "1 c height width"], Int32[np.ndarray, "height width"]]:
    """Segment one frame of one video, looking for each object near its last place first.

    An object that is nowhere in its window is looked for in the whole frame.

    Args:
        model: the network.
        track: what is remembered; its entries in the order of their labels.
        query: the frame.
        previous: the likeliest layer of each pixel in the previous frame.
        reach: see `windows.window_round`.

    Returns:
        Probabilities of background and each entry; the likeliest layer of each pixel.
    """
    grid = (query.key.shape[1], query.key.shape[2])
    windows = windows_round(previous, len(track.video), reach, grid, CONTEXT)
    found = segment(model, track, query, windows)
    where = likeliest(found[0])
    pixels = np.bincount(where.ravel(), minlength=len(windows) + 1)
    wider = [
        window if pixels[layer] else whole(grid) for layer, window in enumerate(windows, start=1)
    ]
    if wider == windows:
        return found, where
    found = segment(model, track, query, wider)
    return found, likeliest(found[0])


def logits_within(
    model: STReMN, track: Track, query: Query, windows: Sequence[Window]
) -> Float[Tensor, "n 1 h4 w4"]:
    """Segment one frame, for each entry in its own window: logits at stride 4."""
    height, width = query.stem.shape[-2:]
    logits = query.stem.new_full((len(windows), 1, height, width), -BOUND)
    for entry, window in enumerate(windows):
        rows, columns = window.at(4)
        found = model.recall(track.state.entry(entry), query.within(window))
        logits[entry, :, rows, columns] = found[0]
    return logits


def upsampled(
    logits: Float[Tensor, "n 1 h4 w4"], frames: Float[Tensor, "_ 3 height width"]
) -> Float[Tensor, "n height width"]:
    """Bring logits at stride 4 to the size of `frames`, in float32."""
    size = frames.shape[-2:]
    return F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)[:, 0]


def scatter(
    logits: Float[Tensor, "n height width"], track: Track, videos: int, objects: int
) -> Float[Tensor, "videos objects height width"]:
    """Put entries' logits at [video, label - 1]; where there is no entry, `ABSENT`."""
    dense = logits.new_full((videos, objects, *logits.shape[1:]), ABSENT)
    return dense.index_put((track.video, track.label - 1), logits)


def aggregate(
    logits: Float[Tensor, "b o height width"],
) -> Float[Tensor, "b c height width"]:
    """STM's soft aggregation: merge each object's own logit into one distribution per pixel.

    p_0 = prod(1 - p_i), every p clamped to [1e-7, 1 - 1e-7]; then a softmax over the logits
    log(p / (1 - p)) of background and objects. Returns log-probabilities, background first.
    """
    background = F.logsigmoid(-logits).sum(dim=1, keepdim=True)  # log p_0
    background = background.clamp(-BOUND, -1e-7)
    odds = background - torch.log(-torch.expm1(background))  # log(p_0 / (1 - p_0))
    objects = torch.where(logits <= ABSENT, logits, logits.clamp(-BOUND, BOUND))
    return torch.cat([odds, objects], dim=1).log_softmax(dim=1)


def shares(logits: Float[Tensor, "b o height width"]) -> Float[Tensor, "b c height width"]:
    """`aggregate` without logarithms and gradients: probabilities, background first.

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


def likeliest(shares: Float[Tensor, "c height width"]) -> Int32[np.ndarray, "height width"]:
    """Return the likeliest layer of every pixel: 0 is the background.

    (`argmax` says the same; on CPUs it takes fifteen times as long.)
    """
    return shares.max(0).indices.to(torch.int32).cpu().numpy()


def label_map_of(shares: Float[np.ndarray, "c height width"], ids: Sequence[int]) -> Labels:
    """Return the likeliest object of every pixel, 0 for the background.

    Args:
        shares: probabilities of background and objects.
        ids: of the objects, in their order.

    Returns:
        uint8, or uint16 if an id is over 255.
    """
    kind = np.uint16 if max(ids, default=0) > 255 else np.uint8
    if len(shares) == 2:  # one object: a comparison is cheaper than an argmax
        return np.where(shares[1] > shares[0], ids[0], 0).astype(kind)
    return np.array([0, *ids], dtype=kind)[likeliest(torch.from_numpy(shares))]


def with_given(
    shares: Float[Tensor, "b c height width"],
    truth: Float[Tensor, "b o height width"],
    given: Bool[Tensor, "b o"],
) -> Float[Tensor, "b c height width"]:
    """Put true masks over what was segmented: objects `given` are there and nowhere else.

    Args:
        shares: probabilities of background and objects, c = 1 + o.
        truth: true masks in [0, 1]; those of objects not `given` are not looked at.
        given: which objects of each video have a true mask in this frame.
    """
    mask = given[:, :, None, None]
    truth = truth * mask
    own = shares[:, 1:] * mask
    background = shares[:, :1] + own.sum(1, keepdim=True)
    rest = torch.cat([background, shares[:, 1:] - own], 1)
    return rest * (1 - truth.sum(1, keepdim=True).clamp(0, 1)) + F.pad(truth, (0, 0, 0, 0, 1, 0))


def given_up(
    shares: Float[Tensor, "1 c height width"],
    layers: Int32[np.ndarray, "height width"],
    where: Bool[np.ndarray, "height width"],
) -> Float[Tensor, "1 c height width"]:
    """Give the share of each pixel's layer to the background, at the pixels `where`."""
    rows, columns = np.nonzero(where & (layers > 0))
    layer = layers[rows, columns]
    result = shares.clone()
    result[0, 0, rows, columns] += result[0, layer, rows, columns]
    result[0, layer, rows, columns] = 0
    return result


def object_masks(
    probabilities: Float[Tensor, "videos c height width"], track: Track
) -> Float[Tensor, "n 2 height width"]:
    """Return for each entry its object's soft mask and the union of the others'."""
    own = probabilities[track.video, track.label]
    foreground = probabilities[:, 1:].sum(dim=1)[track.video]
    return torch.stack([own, (foreground - own).clamp(0, 1)], dim=1)


def memorize(
    model: STReMN,
    track: Track,
    query: Query,
    probabilities: Float[Tensor, "videos c height width"],
    *,
    frame: int,
    policy: UpdatePolicy,
    pin: bool | Bool[Tensor, " n"] = False,
    reuse: bool = False,
    windows: Sequence[Window] | None = None,
) -> tuple[Track, Choice]:
    """Write the frame under its soft label map into every entry's memory.

    `reuse` overwrites the track's memory in place (see `operations.write`). `windows`, for
    entries of one frame, say where each object is (see `STReMN.encode_memory_within`).
    """
    masks = object_masks(probabilities, track).to(query.stem.dtype)
    state, choice = model.memorize(
        track.state,
        query.take(track.video),
        masks,
        frame=frame,
        policy=policy,
        pin=pin,
        reuse=reuse,
        windows=windows,
    )
    return replace(track, state=state), choice


def start(
    model: STReMN,
    video: Int[Tensor, " n"],
    label: Int[Tensor, " n"],
    slots: int,
    frame_size: tuple[int, int],
    growth: int = 0,
) -> Track:
    """Return a track of new objects, their memories empty."""
    return Track(model.empty_state(len(video), slots, frame_size, growth), video, label)


def one_hot(
    labels: Int[Tensor, "b height width"], objects: int
) -> Float[Tensor, "b c height width"]:
    """Return label maps 0..objects as probabilities of background and objects; void is 0."""
    channels = torch.arange(objects + 1, device=labels.device).reshape(1, -1, 1, 1)
    return (labels[:, None] == channels).float()
