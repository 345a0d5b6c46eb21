"""Video prediction with the space-time memory (Sec 4.2).

The input at each step is a stack of three consecutive frames. The query encoder serves as memory
encoder: a stack is encoded once, read with, decoded, then written as it is. Order of a step: recall
from the stacks before, then memorize this one; the very first stack is only memorized, so a memory
is never read empty. A model that carries a state (not the paper's) carries it on before it recalls.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stremn.errors import StremnError
from stremn.memory.choices import UpdatePolicy
from stremn.memory.reading import read
from stremn.memory.state import EVIDENCE, MemoryState, Template
from stremn.memory.writing import write
from stremn.moved import earlier_arguments, moved_names
from stremn.prediction.config import PredictionConfig
from stremn.prediction.motion import Motion, move
from stremn.prediction.outputs import Traced, build_output, copied_over, observed_frame
from stremn.prediction.recurrence import ConvLSTMCell
from stremn.prediction.rollouts import Rollout, check_frames
from stremn.prediction.rules import memory_rule

FLOW_UNIT = 8.0
"""Pixels of a flow that count as 1 where a network is shown it."""


@dataclass(frozen=True)
class Encoded:
    """An encoded stack of frames: what the memory is read with, and what is stored."""

    features: Float[Tensor, "b f h w"]
    key: Float[Tensor, "b h w ck"]
    query: Float[Tensor, "b h w ck"]
    """What is read with: `key`, unless templates are moved as a whole."""
    value: Float[Tensor, "b h w co"]
    """The query's own value."""
    stored: Float[Tensor, "b h w cv"]
    """The value that is stored: `value`, unless templates are moved as a whole."""
    pixels: Float[Tensor, "b h w p"]
    """Stored beside the value for copying: a frame and its opacity, folded; p = 0 where nothing is
    copied."""
    update_key: Float[Tensor, "b h w cu"]
    last: Float[Tensor, "b c height width"]
    motion: Float[Tensor, "b m height width"]
    """The flow that leads to the coming frame; m = 0 without one."""
    detail: Float[Tensor, "b d h2 w2"]
    """What goes past the encoder; d = 0 where nothing does."""
    source: Float[Tensor, "b c height width"]
    """The observed frame that `last` comes from: itself, if it was observed."""
    travel: Float[Tensor, "b m height width"]
    """The flow from `last` back to `source`."""

    def chunk(self, parts: int) -> list[Encoded]:
        """Cut the batch into equal parts."""
        pieces = (tensor.chunk(parts) for tensor in self._tensors())
        return [Encoded(*piece) for piece in zip(*pieces, strict=True)]

    def after(self, entries: int) -> Encoded:
        """Leave out the first entries of the batch."""
        return Encoded(*(tensor[entries:] for tensor in self._tensors()))

    def _tensors(self) -> tuple[Tensor, ...]:
        return (
            self.features,
            self.key,
            self.query,
            self.value,
            self.stored,
            self.pixels,
            self.update_key,
            self.last,
            self.motion,
            self.detail,
            self.source,
            self.travel,
        )


@dataclass(frozen=True)
class Past:
    """What is kept of the stacks so far: the memory, and a carried state if the model has one.

    `carried` holds a hidden state "b c h w" and a cell of the same shape, or nothing. Both
    are of a fixed size.
    """

    memory: MemoryState
    carried: tuple[Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return self.memory.nbytes + sum(tensor.nbytes for tensor in self.carried)


class FramePredictor(nn.Module):
    """STReMN for video prediction: encoder, three projections, memory, decoder.

    Not in the paper: a `recurrence` sees every stack's features, in order, and its hidden state is
    decoded together with what was read. A read finds what looks alike, wherever and whenever it
    was; the carried state knows where things are going.

    Args:
        encoder: stack of frames to features "b c h w".
        to_key: features to read keys (3x3 convolution, shared by query and memory).
        to_value: features to values.
        to_update_key: features to update keys (Eq 1).
        decoder: [what was read, the query's own value] to frame logits (Eq 5).
        recurrence: None, the paper's, or what carries a state on by one stack.
        motion: None, the paper's, or what estimates the flow to the coming frame.
        fine_keys: None, the paper's, or what makes keys and stored values of pixels, in place of
            `to_key` and `to_update_key`.
        detail: None, the paper's, or a stack's folded input to what the decoder's head sees of it.
        policy: the replacement rule.
        config: the numbers; saved with the weights.
    """

    def __init__(
        self,
        encoder: nn.Module,
        to_key: nn.Module,
        to_value: nn.Module,
        to_update_key: nn.Module,
        decoder: nn.Module,
        recurrence: ConvLSTMCell | None,
        motion: Motion | None,
        fine_keys: nn.Module | None,
        detail: nn.Module | None,
        policy: UpdatePolicy,
        config: PredictionConfig,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.recurrence = encoder, decoder, recurrence
        self.to_key, self.to_value, self.to_update_key = to_key, to_value, to_update_key
        self.motion, self.fine_keys, self.detail = motion, fine_keys, detail
        self.policy = policy
        self.config = config
        self.output = build_output(
            config.output, config.channels, config.reach, config.smoothness
        ).apply

    @earlier_arguments(rule="policy", slots="memory_slots")
    def under(self, policy: str, memory_slots: int | None = None) -> FramePredictor:
        """Return a predictor that shares the weights, with another replacement rule.

        The model's own rule keeps its weights; "growing" keeps every stack. "learned" works on
        update keys, which a model trained with another rule has as they were drawn.

        Raises:
            StremnError: an unknown rule, or one whose weights this model never trained.
        """
        own = policy == self.config.policy
        update = {
            "policy": policy,
            "memory_slots": memory_slots or self.config.memory_slots,
            "growth": 8 if policy == "growing" else 0,
        }
        rule = self.policy if own else memory_rule(policy)
        if not own and isinstance(rule, nn.Module) and any(True for _ in rule.parameters()):
            raise StremnError(
                f"The rule {policy!r} has weights of its own, and this model was trained with the "
                f"rule {self.config.policy!r}: there is nothing trained to score. Train it with "
                f"model.policy={policy}."
            )
        return self._with(rule, self.config.model_copy(update=update))

    def _with(self, policy: UpdatePolicy, config: PredictionConfig) -> FramePredictor:
        other = FramePredictor(
            self.encoder,
            self.to_key,
            self.to_value,
            self.to_update_key,
            self.decoder,
            self.recurrence,
            self.motion,
            self.fine_keys,
            self.detail,
            policy,
            config,
        )
        return other.train(self.training)

    def empty(self, batch: int, height: int, width: int, device: torch.device) -> Past:
        """Return an empty memory for frames of this size, and a carried state of zeros."""
        c = self.config
        grid = (height // c.feature_stride, width // c.feature_stride)
        memory = MemoryState.empty(
            batch,
            c.memory_slots,
            grid,
            key=c.key,
            value=c.stored_value + c.stored_pixels,
            update_key=c.compared_channels,
            growth=c.growth,
            device=device,
        )
        if self.recurrence is None:
            return Past(memory)
        hidden, cell = (torch.zeros(batch, c.carried, *grid, device=device) for _ in range(2))
        return Past(memory, (hidden, cell))

    def encode_query(
        self, stack: Float[Tensor, "b s c height width"], last: Traced | None = None
    ) -> Encoded:
        """Encode and project stacks of consecutive frames in [0, 1].

        `last` traces the stacks' last frames, if they were predicted; None: they were observed.
        """
        led = None if last is None else last.led
        motion = stack[:, 0, :0] if self.motion is None else self.motion(stack, led)
        traced = observed_frame(stack[:, -1], motion) if last is None else last
        shown = [stack.flatten(1, 2), _explained(stack, motion)]
        if self.config.motion == "carried":
            shown.append(traced.travel / FLOW_UNIT)
        folded = F.pixel_unshuffle(torch.cat(shown, dim=1), self.config.patch)
        features = self.encoder(folded)  # b c h w
        value = self.to_value(features).permute(0, 2, 3, 1)
        return Encoded(
            features,
            *self._remembered(features, value, stack, motion),
            stack[:, -1],
            motion,
            features[:, :0] if self.detail is None else self.detail(folded),
            traced.source,
            traced.travel,
        )

    def encode_template(self, stack: Float[Tensor, "b s c height width"]) -> Encoded:
        """Encode stacks that are only memorized; where pixels have keys, leave out all else.

        The result has no features, motion, detail or value of its own: nothing can be read with it.
        """
        if self.fine_keys is None or self.recurrence is not None:
            return self.encode_query(stack)
        last, stride = stack[:, -1], self.config.feature_stride
        still = last[:, :0]
        features = still[..., ::stride, ::stride]
        remembered = self._remembered(features, features.permute(0, 2, 3, 1), stack, still)
        return Encoded(features, *remembered, last, still, features, last, still)

    def _remembered(
        self,
        features: Float[Tensor, "b f h w"],
        value: Float[Tensor, "b h w co"],
        stack: Float[Tensor, "b s c height width"],
        motion: Float[Tensor, "b m height width"],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return key, query key, own value, stored value, stored pixels, update key, "b h w n"."""
        if self.fine_keys is None:
            key = self.to_key(features).permute(0, 2, 3, 1)
            update_key = self.to_update_key(features).permute(0, 2, 3, 1)
            return key, key, value, value, value[..., :0], update_key
        *fine, update_key = self.fine_keys(stack, motion)
        key, query, stored, pixels = (
            F.pixel_unshuffle(maps, self.config.fold).permute(0, 2, 3, 1)
            if maps.shape[1]
            else value[..., :0]
            for maps in fine
        )
        return key, query, value, stored, pixels, update_key.permute(0, 2, 3, 1)

    def carry(self, past: Past, encoded: Encoded) -> Past:
        """Update the carried state by one stack; without a state, do nothing."""
        if self.recurrence is None:
            return past
        return replace(past, carried=self.recurrence(encoded.features, *past.carried))

    def memorize(self, past: Past, encoded: Encoded, frame: int) -> Past:
        """Write a stack that was encoded for reading (Eq 4); `frame` is its last frame's index."""
        evidence = encoded.key.new_zeros(encoded.key.shape[0], EVIDENCE)  # there are no objects
        value = torch.cat([encoded.stored, encoded.pixels], dim=-1)
        update_key = encoded.update_key[..., : self.config.compared_channels]
        template = Template(encoded.key, value, update_key, evidence, frame)
        return replace(past, memory=write(past.memory, template, self.policy)[0])

    def recall(self, past: Past, encoded: Encoded) -> Float[Tensor, "b c height width"]:
        """Read the memory with a stack (Eq 5) and decode the next frame.

        A carried state must have been carried on by this stack.
        """
        return self.draw(past, encoded).frame

    def draw(self, past: Past, encoded: Encoded) -> Traced:
        """Do as `recall`, and trace where pixels were observed, for a roll-out's `encode_query`."""
        return self.decode(self.retrieve(past, encoded), encoded)

    def retrieve(self, past: Past, encoded: Encoded) -> Float[Tensor, "b h w n"]:
        """Return what was read for a stack (Eq 5, left side), and a carried state's hidden half.

        Reading is always in float32: bfloat16 loses the order of large products.
        """
        if self.config.unread:
            found = torch.zeros_like(torch.cat([encoded.stored, encoded.pixels], dim=-1))
        else:
            with torch.autocast(encoded.key.device.type, enabled=False):
                found = read(past.memory, encoded.query.float(), matching=self.config.matching)
        if not past.carried:
            return found
        return torch.cat([found, past.carried[0].permute(0, 2, 3, 1)], dim=-1)

    def decode(self, retrieved: Float[Tensor, "b h w n"], encoded: Encoded) -> Traced:
        """Decode what was read and the query's own value (Eq 5, right side) into a frame."""
        values, pixels = encoded.stored.shape[-1], encoded.pixels.shape[-1]
        found, copies, carried = retrieved.tensor_split([values, values + pixels], dim=-1)
        joined = torch.cat([found, carried, encoded.value], dim=-1).permute(0, 3, 1, 2)
        logits = F.pixel_shuffle(self.decoder(joined, encoded.detail), self.config.patch)
        last = Traced(encoded.last, encoded.source, encoded.travel)
        if not pixels:
            return self.output(logits, last, encoded.motion)
        drawn = self.output(logits[:, 1:], last, encoded.motion)
        recalled = F.pixel_shuffle(copies.permute(0, 3, 1, 2), self.config.fold)
        return copied_over(drawn, recalled, logits[:, :1])

    def rollout(
        self,
        frames: Float[Tensor, "b t c height width"],
        observed: int,
        future: int,
        silent: int = 0,
    ) -> Rollout:
        """Predict frames as `Forecaster.rollout`; the first one predicted follows stack 2.

        All observed stacks that are not silent are encoded in one call and decoded in one call, the
        silent ones encoded in another; only reads, writes, the carried state and the future steps
        are sequential. The result is that of a step-by-step loop.
        """
        size = self.config.stack
        check_frames(frames[:, :observed], size, self.config.channels)
        seen = frames[:, :observed]
        if observed == size:  # one stack cannot be both memory and query: repeat the first frame
            seen = torch.cat([seen[:, :1], seen], dim=1)
        shift = seen.shape[1] - observed
        b, count = seen.shape[0], seen.shape[1] - size + 1
        silent = min(silent, count - 2) + 1  # the first stack is only memorized
        stacks = [seen[:, i : i + size] for i in range(count)]
        encoded = self.encode_query(torch.cat(stacks[silent:]))  # (count b) ...
        early = self.encode_template(torch.cat(stacks[:silent])).chunk(silent)
        first, *others = early + encoded.chunk(count - silent)
        height, width = frames.shape[-2:]
        past = self.carry(self.empty(b, height, width, frames.device), first)
        past = self.memorize(past, first, size - 1 - shift)
        retrieved = []
        for i, stack in enumerate(others, start=1):
            past = self.carry(past, stack)
            if i >= silent:
                retrieved.append(self.retrieve(past, stack))
            past = self.memorize(past, stack, size - 1 + i - shift)
        decoded = self.decode(torch.cat(retrieved), encoded)
        predictions = list(decoded.frame.chunk(len(retrieved)))
        shown = decoded.of_last(b)
        window = torch.cat([seen, predictions[-1][:, None]], dim=1)[:, -size:]
        for step in range(future - 1):
            stack = self.encode_query(window, shown)
            past = self.carry(past, stack)
            shown = self.draw(past, stack)
            predictions.append(shown.frame)
            past = self.memorize(past, stack, observed + step)
            window = torch.cat([window[:, 1:], predictions[-1][:, None]], dim=1)
        return Rollout(torch.stack(predictions, dim=1), observed + 1 - len(retrieved))


def _explained(
    stack: Float[Tensor, "b s c height width"], motion: Float[Tensor, "b m height width"]
) -> Float[Tensor, "b n height width"]:
    """Return the encoder's input from a motion: the flow, the warped frame, and its error.

    The error is that of the last frame, drawn from the one before; m = 0 shows nothing.
    """
    if motion.shape[1] == 0:
        return motion
    last, before = stack[:, -1], stack[:, -2]
    error = (move(before, motion) - last).abs().mean(1, keepdim=True)
    return torch.cat([motion / FLOW_UNIT, move(last, motion), error], dim=1)


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
