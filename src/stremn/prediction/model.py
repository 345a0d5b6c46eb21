"""Video prediction with the space-time memory (Sec 4.2).

The input at each step is a stack of three consecutive frames. The query encoder serves as memory
encoder: a stack is encoded once, read with, decoded, then written as it is. Order of a step: recall
from the stacks before, then memorize this one; the very first stack is only memorized, so a memory
is never read empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, cast

import torch
from jaxtyping import Float, UInt8
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from stremn.config import Config
from stremn.errors import StremnError
from stremn.memory import EVIDENCE, MemoryState, Scale, Template, UpdatePolicy, read, write
from stremn.policies import Append, RandomDrop, RandomSelect, build_policy
from stremn.prediction.frame_coders import FrameDecoder, FrameEncoder
from stremn.prediction.losses import l1, l2, scale_invariant_gradient, shrinkage_l1, shrinkage_l2
from stremn.training.losses import LossReport


class PredictionConfig(Config):
    """Everything that fixes a `FramePredictor` but its weights; numbers as in `PRESETS`."""

    kind: Literal["stremn"] = "stremn"
    channels: Literal[1, 3] = 1
    size: int = Field(default=64, gt=0)
    stack: int = Field(default=3, gt=0)
    widths: tuple[int, ...] = (32, 32, 64, 64, 128, 128)
    strides: tuple[int, ...] = (2, 1, 2, 1, 1, 1)
    key: int = Field(default=64, gt=0)
    value: int = Field(default=256, gt=0)
    update_key: int = Field(default=64, gt=0)
    slots: int = Field(default=5, gt=0)
    policy: str = "learned"
    growth: int = Field(default=0, ge=0)
    """Slots added whenever all are taken; for the rule "growing" only."""
    scale: Scale = "sqrt"
    output: Literal["sigmoid", "residual", "moved"] = "sigmoid"
    reach: int = Field(default=2, gt=0)
    """Of the output "moved" only: pixels that a thing may go from one frame to the next."""
    groups: int = Field(default=8, gt=0)
    slope: float = Field(default=0.2, ge=0)

    @model_validator(mode="after")
    def _size_fits_strides(self) -> PredictionConfig:
        if self.size % self.feature_stride:
            raise ValueError(
                f"size {self.size} must be a multiple of the strides' product {self.feature_stride}"
            )
        return self

    @model_validator(mode="after")
    def _growing_memory_grows(self) -> PredictionConfig:
        if (self.policy == "growing") != (self.growth > 0):
            raise ValueError(
                'growth goes with policy = "growing": give both, as in policy = "growing", '
                "growth = 8, or neither"
            )
        return self

    @property
    def feature_stride(self) -> int:
        """Pixels from one feature to the next."""
        product = 1
        for stride in self.strides:
            product *= stride
        return product


PRESETS: dict[str, PredictionConfig] = {
    "64": PredictionConfig(),
    "128": PredictionConfig(size=128, strides=(2, 1, 2, 1, 2, 1)),
    "128-rgb": PredictionConfig(size=128, strides=(2, 1, 2, 1, 2, 1), channels=3),
    "32-small": PredictionConfig(
        size=32, widths=(16, 16, 32, 32, 48, 48), key=24, value=48, update_key=24
    ),
    "64-small": PredictionConfig(
        size=64,
        widths=(16, 32, 48, 64, 64, 64),
        strides=(2, 2, 2, 1, 1, 1),
        key=32,
        value=64,
        update_key=32,
    ),
}
"""64x64 and 128x128 as the paper needs them, on a 16x16 grid; small ones for a CPU."""


@dataclass(frozen=True)
class Encoded:
    """A stack of frames after encoder and projections: what is read with, and what is stored."""

    key: Float[Tensor, "b h w ck"]
    value: Float[Tensor, "b h w cv"]
    update_key: Float[Tensor, "b h w cu"]
    last: Float[Tensor, "b c height width"]

    def chunk(self, parts: int) -> list[Encoded]:
        """Cut the batch into equal parts."""
        pieces = (x.chunk(parts) for x in (self.key, self.value, self.update_key, self.last))
        return [Encoded(*piece) for piece in zip(*pieces, strict=True)]

    def after(self, entries: int) -> Encoded:
        """Leave out the first entries of the batch."""
        return Encoded(
            self.key[entries:], self.value[entries:], self.update_key[entries:], self.last[entries:]
        )


@dataclass(frozen=True)
class Rollout:
    """Predicted frames: `frames[:, i]` predicts the clip's frame `first + i`."""

    frames: Float[Tensor, "b n c height width"]
    first: int


class Forecaster(Protocol):
    """What a trainable predictor can do: our model and the recurrent baselines alike."""

    def rollout(
        self, frames: Float[Tensor, "b t c height width"], observed: int, future: int
    ) -> Rollout:
        """Predict one step ahead over the observed frames, then `future` frames freely.

        Only the first `observed` frames are looked at.
        """
        ...


class Output(Protocol):
    """How the decoder's last channels become a frame."""

    def __call__(
        self,
        logits: Float[Tensor, "b n height width"],
        last: Float[Tensor, "b c height width"],
    ) -> Float[Tensor, "b c height width"]:
        """Return frames in [0, 1]; `last` is the stack's last frame."""
        ...


def sigmoid_output(
    logits: Float[Tensor, "b c height width"], last: Float[Tensor, "b c height width"]
) -> Float[Tensor, "b c height width"]:
    """The frame is drawn anew: the sigmoid of the logits."""
    return torch.sigmoid(logits)


def residual_output(
    logits: Float[Tensor, "b c height width"], last: Float[Tensor, "b c height width"]
) -> Float[Tensor, "b c height width"]:
    """The frame is a change of the last one, in logits; zero logits copy it (to within 0.01).

    Not in the paper: an extension for scenes whose background stands still.
    """
    return torch.sigmoid(logits + torch.logit(last, eps=0.01))


def moved_output(
    logits: Float[Tensor, "b n height width"],
    last: Float[Tensor, "b c height width"],
    *,
    reach: int,
) -> Float[Tensor, "b c height width"]:
    """Each pixel is a weighted mean of the last frame's pixels near it and of one drawn anew.

    Not in the paper: an extension, after the dynamic filters of DFN (Jia et al. 2016). What was
    seen is carried over rather than drawn again from features, so a roll-out loses less of it.

    Args:
        logits: (2 reach + 1)^2 + 1 for the softmax of the weights, then one per drawn channel.
        last: the stack's last frame; black is assumed around it.
        reach: how far a pixel may come from, along each axis.
    """
    weights, drawn = logits.tensor_split([moved_taps(reach)], dim=1)
    weights = weights.softmax(1)
    near = F.unfold(last, 2 * reach + 1, padding=reach)  # b (c taps) (height width)
    near = near.unflatten(1, (last.shape[1], -1)).unflatten(-1, last.shape[-2:])
    carried = (near * weights[:, None, :-1]).sum(2)
    return carried + weights[:, -1:] * torch.sigmoid(drawn)


def moved_taps(reach: int) -> int:
    """Weights per pixel of `moved_output`: one for every place to come from, one for drawing."""
    return (2 * reach + 1) ** 2 + 1


def build_output(config: PredictionConfig) -> tuple[Output, int]:
    """Return the output a configuration names, and how many channels it needs."""
    if config.output == "moved":
        moved = partial(moved_output, reach=config.reach)
        return moved, moved_taps(config.reach) + config.channels
    plain: dict[str, Output] = {"sigmoid": sigmoid_output, "residual": residual_output}
    return plain[config.output], config.channels


class FramePredictor(nn.Module):
    """STReMN for video prediction: encoder, three projections, memory, decoder.

    Args:
        encoder: stack of frames to features "b c h w".
        to_key: features to read keys (3x3 convolution, shared by query and memory).
        to_value: features to values.
        to_update_key: features to update keys (Eq 1).
        decoder: [what was read, the query's own value] to frame logits (Eq 5).
        policy: which slot gives way.
        config: the numbers; saved with the weights.
    """

    def __init__(
        self,
        encoder: nn.Module,
        to_key: nn.Module,
        to_value: nn.Module,
        to_update_key: nn.Module,
        decoder: nn.Module,
        policy: UpdatePolicy,
        config: PredictionConfig,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.to_key, self.to_value, self.to_update_key = to_key, to_value, to_update_key
        self.policy = policy
        self.config = config
        self.output, _ = build_output(config)

    def under(self, rule: str, slots: int | None = None) -> FramePredictor:
        """Return a predictor with the same weights (shared) and the memory rule of a name.

        The model's own rule keeps its weights; "growing" keeps every stack.
        """
        own = rule == self.config.policy
        update = {
            "policy": rule,
            "slots": slots or self.config.slots,
            "growth": 8 if rule == "growing" else 0,
        }
        policy = self.policy if own else memory_rule(rule)
        return self._with(policy, self.config.model_copy(update=update))

    def _with(self, policy: UpdatePolicy, config: PredictionConfig) -> FramePredictor:
        other = FramePredictor(
            self.encoder,
            self.to_key,
            self.to_value,
            self.to_update_key,
            self.decoder,
            policy,
            config,
        )
        return other.train(self.training)

    def empty(self, batch: int, height: int, width: int, device: torch.device) -> MemoryState:
        """Return an empty memory for frames of this size."""
        c = self.config
        grid = (height // c.feature_stride, width // c.feature_stride)
        return MemoryState.empty(
            batch,
            c.slots,
            grid,
            key=c.key,
            value=c.value,
            update_key=c.update_key,
            growth=c.growth,
            device=device,
        )

    def encode_query(self, stack: Float[Tensor, "b s c height width"]) -> Encoded:
        """Encode and project stacks of consecutive frames in [0, 1]."""
        features = self.encoder(stack.flatten(1, 2))  # b (s c) height width
        return Encoded(
            self.to_key(features).permute(0, 2, 3, 1),
            self.to_value(features).permute(0, 2, 3, 1),
            self.to_update_key(features).permute(0, 2, 3, 1),
            stack[:, -1],
        )

    def memorize(self, state: MemoryState, encoded: Encoded, frame: int) -> MemoryState:
        """Eq 4: write a stack that was encoded for reading; `frame` is its last frame's index."""
        evidence = encoded.key.new_zeros(encoded.key.shape[0], EVIDENCE)  # there are no objects
        template = Template(encoded.key, encoded.value, encoded.update_key, evidence, frame)
        return write(state, template, self.policy)[0]

    def recall(self, state: MemoryState, encoded: Encoded) -> Float[Tensor, "b c height width"]:
        """Eq 5: read the memory with a stack, decode the frame that follows it."""
        return self.decode(read(state, encoded.key, scale=self.config.scale), encoded)

    def decode(
        self, retrieved: Float[Tensor, "b h w cv"], encoded: Encoded
    ) -> Float[Tensor, "b c height width"]:
        """Eq 5's right side: decode [what was read, the query's own value] into a frame."""
        joined = torch.cat([retrieved, encoded.value], dim=-1).permute(0, 3, 1, 2)
        return self.output(self.decoder(joined), encoded.last)

    def rollout(
        self, frames: Float[Tensor, "b t c height width"], observed: int, future: int
    ) -> Rollout:
        """See `Forecaster.rollout`; the first frame predicted is the one after stack 2.

        All observed stacks are encoded in one call and decoded in one call; only reads, writes and
        the future steps are sequential. The result is that of a step-by-step loop.
        """
        size = self.config.stack
        check_frames(frames[:, :observed], size, self.config.channels)
        seen = frames[:, :observed]
        if observed == size:  # one stack cannot be both memory and query: repeat the first frame
            seen = torch.cat([seen[:, :1], seen], dim=1)
        shift = seen.shape[1] - observed
        b, count = seen.shape[0], seen.shape[1] - size + 1
        stacks = torch.cat([seen[:, i : i + size] for i in range(count)])  # (count b) s c h w
        encoded = self.encode_query(stacks)
        first, *others = encoded.chunk(count)
        height, width = frames.shape[-2:]
        state = self.empty(b, height, width, frames.device)
        state = self.memorize(state, first, size - 1 - shift)
        retrieved = []
        for i, stack in enumerate(others):
            retrieved.append(read(state, stack.key, scale=self.config.scale))
            state = self.memorize(state, stack, size + i - shift)
        decoded = self.decode(torch.cat(retrieved), encoded.after(b))
        predictions = list(decoded.chunk(count - 1))
        window = torch.cat([seen, predictions[-1][:, None]], dim=1)[:, -size:]
        for step in range(future - 1):
            stack = self.encode_query(window)
            predictions.append(self.recall(state, stack))
            state = self.memorize(state, stack, observed + step)
            window = torch.cat([window[:, 1:], predictions[-1][:, None]], dim=1)
        return Rollout(torch.stack(predictions, dim=1), observed + 1 - (count - 1))


def check_frames(frames: Float[Tensor, "b t c height width"], stack: int, channels: int) -> None:
    """Refuse frames that no prediction can start from.

    Raises:
        StremnError: fewer frames than a stack, other channels than the model's, or values that are
            no finite numbers in [0, 1].
    """
    if frames.shape[1] < stack:
        raise StremnError(
            f"Prediction starts from a stack of {stack} frames, but only {frames.shape[1]} "
            "were given. Give a longer video."
        )
    if frames.shape[2] != channels:
        raise StremnError(
            f"This model was built for frames of {channels} channel(s), but these have "
            f"{frames.shape[2]}. Choose a preset with channels={frames.shape[2]}, or convert the "
            "frames."
        )
    low, high = (float(bound) for bound in frames.detach().aminmax())
    if not (low >= 0 and high <= 1):
        raise StremnError(
            f"Frames must hold values in [0, 1], but these reach from {low:g} to {high:g}. "
            "Divide 8-bit frames by 255."
        )


def memory_rule(name: str, *, training: bool = False) -> UpdatePolicy:
    """Return the rule called `name`: a policy's name, or "growing", which keeps every stack.

    In training the random rules draw anew for every clip; else they repeat.
    """
    if name == "growing":
        return Append(every=1)
    if training and name == "random-drop":
        return RandomDrop(seed=None)
    if training and name == "random-select":
        return RandomSelect(seed=None)
    return build_policy(name)


def build_model(config: PredictionConfig, *, training: bool = False) -> FramePredictor:
    """Build a predictor with fresh weights; `training` as in `memory_rule`."""
    widths, strides = config.widths, config.strides
    features = widths[-1]
    return FramePredictor(
        FrameEncoder(config.stack * config.channels, widths, strides, config.groups, config.slope),
        nn.Conv2d(features, config.key, 3, padding=1),
        nn.Conv2d(features, config.value, 3, padding=1),
        nn.Conv2d(features, config.update_key, 3, padding=1),
        FrameDecoder(
            2 * config.value, build_output(config)[1], widths, strides, config.groups, config.slope
        ),
        memory_rule(config.policy, training=training),
        config,
    )


# -------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class FrameBatch:
    """Clips for training: uint8 frames, grey or RGB."""

    frames: UInt8[Tensor, "b t c height width"]

    def to(self, device: torch.device) -> FrameBatch:
        """Copy to a device."""
        return FrameBatch(self.frames.to(device))


def collate(clips: Sequence[UInt8[Tensor, "t c height width"]]) -> FrameBatch:
    """Join clips of equal shape into a batch."""
    return FrameBatch(torch.stack(list(clips)))


class LossConfig(Config):
    """Weights of the loss: pixel loss + gradient_weight x scale-invariant gradient (Sec 4.2).

    `pixel` is the paper's "shrinkage" on L1 and L2, or as controls "plain" L1 + L2, or "squared",
    L2 alone, which does not pull uncertain pixels to black early in training. The gradient's
    weight rises from 0 over the first `gradient_ramp` of training.

    `future_weight`, not in the paper, is how much more one of the clip's last `future` frames
    counts than one of the observed frames, which are predicted one step ahead.
    """

    pixel: Literal["shrinkage", "plain", "squared"] = "shrinkage"
    gradient_weight: float = Field(default=0.1, ge=0)
    gradient_ramp: float = Field(default=0.3, ge=0, le=1)
    future_weight: float = Field(default=1.0, gt=0)


class HorizonConfig(Config):
    """What a training clip is: `observed` frames, then `future` frames.

    Roll-out in training: the last frames of the clip are predicted freely, from own predictions;
    the frames before are predicted one step ahead from true ones. The free part grows from one
    frame to `future` frames over the first `full_at` of training. So every frame is supervised
    always, and the share of true input falls as in scheduled sampling.
    """

    observed: int = Field(default=10, gt=0)
    future: int = Field(default=10, gt=0)
    full_at: float = Field(default=0.5, ge=0, le=1)

    def free(self, progress: float) -> int:
        """Frames predicted freely at a progress in [0, 1]."""
        share = 1.0 if self.full_at == 0 else min(progress / self.full_at, 1.0)
        return 1 + round((self.future - 1) * share)


PIXEL_LOSSES = {
    "shrinkage": (shrinkage_l1, shrinkage_l2),
    "plain": (l1, l2),
    "squared": (l2,),
}


def frame_loss(
    prediction: Float[Tensor, "b n c height width"],
    target: Float[Tensor, "b n c height width"],
    config: LossConfig,
    progress: float,
) -> LossReport:
    """Pixel losses plus the weighted scale-invariant gradient, as means over all frames."""
    terms = {loss.__name__: loss(prediction, target) for loss in PIXEL_LOSSES[config.pixel]}
    scalars = {name: float(term.detach()) for name, term in terms.items()}
    total = torch.stack(list(terms.values())).sum()
    ramp = 1.0 if config.gradient_ramp == 0 else min(progress / config.gradient_ramp, 1.0)
    weight = config.gradient_weight * ramp
    if weight > 0:
        gradient = scale_invariant_gradient(prediction, target)
        scalars["gradient"] = float(gradient.detach())
        total = total + weight * gradient
    return LossReport(total, scalars)


def clip_loss(
    model: nn.Module,
    batch: FrameBatch,
    progress: float,
    *,
    horizon: HorizonConfig,
    loss: LossConfig,
) -> LossReport:
    """Roll a predictor out over a batch of clips and score every frame it predicted.

    `model` must be a `Forecaster`.
    """
    frames = batch.frames.float() / 255
    free = horizon.free(progress)
    observed = horizon.observed + horizon.future - free
    predicted = cast(Forecaster, model).rollout(frames, observed, free)
    prediction = predicted.frames.float()
    target = frames[:, predicted.first : horizon.observed + horizon.future]
    early = horizon.observed - predicted.first
    if loss.future_weight == 1 or early == 0:
        return frame_loss(prediction, target, loss, progress)
    reports = [
        frame_loss(prediction[:, part], target[:, part], loss, progress)
        for part in (slice(early), slice(early, None))
    ]
    return weighted_mean(reports, (early, loss.future_weight * horizon.future))


def weighted_mean(reports: Sequence[LossReport], weights: Sequence[float]) -> LossReport:
    """Mean of losses with equal terms, and of each term; `weights` need not sum to 1."""
    shares = [weight / sum(weights) for weight in weights]
    total = torch.stack([s * r.loss for s, r in zip(shares, reports, strict=True)]).sum()
    names = reports[0].scalars
    return LossReport(
        total,
        {n: sum(s * r.scalars[n] for s, r in zip(shares, reports, strict=True)) for n in names},
    )
