"""Outputs: turn the decoder's last channels into a frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from stremn.prediction.motion import compose, redraw, smooth

OutputName = Literal["sigmoid", "residual", "moved", "moved-by-axis", "flow", "paced-flow"]

COPIED_BIAS = 2.0
"""Head start of what was read from the memory in `copied_over`, in logits."""

MOVED_BIAS = 2.0
"""Head start of the moved pixel over the other two of `flow_output`, in logits."""


@dataclass(frozen=True)
class Traced:
    """Frames in [0, 1], and where their pixels were observed.

    Attributes:
        frame: the frames.
        source: the observed frames that their pixels come from; of an observed frame, itself.
        travel: the flow from `frame` back to `source`, m = 2; nothing, m = 0, without a motion.
        led: the flow that led to `frame` from the frame before, m = 2, if it was predicted by one.
    """

    frame: Float[Tensor, "b c height width"]
    source: Float[Tensor, "b c height width"]
    travel: Float[Tensor, "b m height width"]
    led: Float[Tensor, "b m height width"] | None = None

    def of_last(self, entries: int) -> Traced:
        """Leave out all but the last entries of the batch."""
        led = None if self.led is None else self.led[-entries:]
        return Traced(self.frame[-entries:], self.source[-entries:], self.travel[-entries:], led)


def observed_frame(
    frame: Float[Tensor, "b c height width"], motion: Float[Tensor, "b m height width"]
) -> Traced:
    """Return frames that were observed; `motion` tells whether they are traced at all."""
    return Traced(frame, frame, torch.zeros_like(motion))


class Output(Protocol):
    """How the decoder's last channels become a frame."""

    def __call__(
        self,
        logits: Float[Tensor, "b n height width"],
        last: Traced,
        motion: Float[Tensor, "b m height width"],
    ) -> Traced:
        """Return the coming frames.

        Args:
            logits: of the decoder.
            last: the stack's last frame.
            motion: the flow from the coming frame back to the last, m = 2, or nothing, m = 0.
        """
        ...


def sigmoid_output(
    logits: Float[Tensor, "b c height width"],
    last: Float[Tensor, "b c height width"],
) -> Float[Tensor, "b c height width"]:
    """Return a new frame: the sigmoid of the logits."""
    return torch.sigmoid(logits)


def residual_output(
    logits: Float[Tensor, "b c height width"],
    last: Float[Tensor, "b c height width"],
) -> Float[Tensor, "b c height width"]:
    """Change the last frame, in logits; zero logits copy it (to within 0.01).

    Not in the paper: an extension for scenes whose background stands still.
    """
    return torch.sigmoid(logits + torch.logit(last, eps=0.01))


def moved_output(
    logits: Float[Tensor, "b n height width"],
    last: Float[Tensor, "b c height width"],
    *,
    reach: int,
) -> Float[Tensor, "b c height width"]:
    """Mix, for each pixel, the last frame's pixels near it and a newly generated value.

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


def moved_by_axis_output(
    logits: Float[Tensor, "b n height width"],
    last: Float[Tensor, "b c height width"],
    *,
    reach: int,
) -> Float[Tensor, "b c height width"]:
    """Apply `moved_output` in two passes: along the rows, then along the columns.

    Not in the paper: an extension, after the separable filters of SepConv (Niklaus et al. 2017).
    A pixel has 2 (2 reach + 1) weights, not (2 reach + 1)^2, so that a wide reach is cheap.

    Args:
        logits: 2 reach + 1 for the weights along the columns, as many along the rows, one for the
            share of what is carried over, then one per drawn channel.
        last: the stack's last frame; black is assumed around it.
        reach: how far a pixel may come from, along each axis.
    """
    taps = 2 * reach + 1
    down, across, share, drawn = logits.float().split([taps, taps, 1, last.shape[1]], dim=1)
    carried = weighted_shifts(last, across.softmax(1), axis=-1)
    carried = weighted_shifts(carried, down.softmax(1), axis=-2)
    share = torch.sigmoid(share)
    return share * carried + (1 - share) * torch.sigmoid(drawn)


def weighted_shifts(
    frame: Float[Tensor, "b c height width"],
    weights: Float[Tensor, "b taps height width"],
    *,
    axis: Literal[-1, -2],
) -> Float[Tensor, "b c height width"]:
    """Sum, for each pixel, its weighted neighbors on one axis; outside is black."""
    taps, length = weights.shape[1], frame.shape[axis]
    reach = taps // 2
    wide = F.pad(frame, (reach, reach) if axis == -1 else (0, 0, reach, reach))
    terms = [wide.narrow(axis, i, length) * weights[:, i : i + 1] for i in range(taps)]
    return torch.stack(terms).sum(0)


def without_motion(draw: Callable[[Tensor, Tensor], Tensor]) -> Output:
    """Return an output that draws from logits and last frame alone, whatever the motion."""

    def apply(
        logits: Float[Tensor, "b n height width"],
        last: Traced,
        motion: Float[Tensor, "b m height width"],
    ) -> Traced:
        return observed_frame(draw(logits, last.frame), motion)

    return apply


def flow_output(
    logits: Float[Tensor, "b n height width"],
    last: Traced,
    motion: Float[Tensor, "b 2 height width"],
) -> Traced:
    """Mix, for each pixel, the warped frame, the last frame and a newly generated value.

    Not in the paper: an extension for real video. The network corrects the motion that was
    estimated and decides where to trust it; untrained, it is nearly the moved frame. In a roll-out
    pixels are moved all the way from the last observed frame: moving predictions again and again
    would blur them.

    Args:
        logits: 2 for the correction of the flow in pixels, 3 for the softmax of the shares, then
            one per drawn channel, which is a change of the moved pixel (see `residual_output`).
        last: the stack's last frame.
        motion: the flow from the coming frame back to the last.
    """
    correction, shares, drawn = logits.float().split([2, 3, last.frame.shape[1]], dim=1)
    flow = motion + correction
    travel = compose(flow, last.travel)
    frame = _shared_out(shares, drawn, redraw(last.source, travel), last.frame)
    return Traced(frame, last.source, travel, flow)


def paced_flow_output(
    logits: Float[Tensor, "b n height width"],
    last: Traced,
    motion: Float[Tensor, "b 2 height width"],
    *,
    smoothness: float = 0.0,
) -> Traced:
    """Mix, for each pixel, the warped frame, the last *observed* frame and a new value.

    Not in the paper: `flow_output` with three changes. The network says how fast the motion goes
    on, as a factor in (0, 2), and not only what to add to it. What stays is taken from the last
    observed frame, so that it does not fade in a roll-out. The flow is smoothed: neighbors that go
    apart by a fraction of a pixel tear texture, more with every step.

    Args:
        logits: 2 for the correction of the flow in pixels, 1 for its pace, 3 for the softmax of the
            shares, then one per drawn channel, as for `flow_output`.
        last: the stack's last frame.
        motion: the flow from the coming frame back to the last.
        smoothness: standard deviation of the Gaussian that motion, correction and pace are smoothed
            with, as a share of the frame's shorter side; 0 smooths nothing.
    """
    steered, shares, drawn = logits.float().split([3, 3, last.frame.shape[1]], dim=1)
    deviation = smoothness * min(last.frame.shape[-2:])
    course = smooth(torch.cat([motion, steered], dim=1), deviation)
    carried, correction, pace = course.split([2, 2, 1], dim=1)
    flow = carried * (1 + torch.tanh(pace)) + correction
    travel = compose(flow, last.travel)
    frame = _shared_out(shares, drawn, redraw(last.source, travel), last.source)
    return Traced(frame, last.source, travel, flow)


def _shared_out(
    shares: Float[Tensor, "b 3 height width"],
    drawn: Float[Tensor, "b c height width"],
    moved: Float[Tensor, "b c height width"],
    stayed: Float[Tensor, "b c height width"],
) -> Float[Tensor, "b c height width"]:
    """Mix what moved, what stayed and a change of what moved; all arguments but two are logits."""
    trust = shares.new_tensor([MOVED_BIAS, 0.0, 0.0]).view(1, 3, 1, 1)
    shares = (shares + trust).softmax(1)
    generated = torch.sigmoid(drawn + torch.logit(moved, eps=0.01))
    return shares[:, :1] * moved + shares[:, 1:2] * stayed + shares[:, 2:] * generated


def copied_over(
    drawn: Traced,
    copies: Float[Tensor, "b n height width"],
    logits: Float[Tensor, "b 1 height width"],
) -> Traced:
    """Lay pixels that were read from the memory over a frame.

    Not in the paper. What was seen long ago comes back as it was, not as features remember it.

    Args:
        drawn: the frame made without them.
        copies: the pixels read, and last the share of them that something was read for, in [0, 1].
        logits: of the weight that the copy gets where all of it was read.
    """
    recalled, share = copies[:, :-1], copies[:, -1:]
    weight = torch.sigmoid(logits.float() + COPIED_BIAS)
    frame = drawn.frame * (1 - weight * share) + weight * recalled
    return Traced(frame.clamp(0, 1), drawn.source, drawn.travel, drawn.led)


def moved_taps(reach: int) -> int:
    """Return the number of weights per pixel of `moved_output`: one per neighbor, one for
    drawing."""
    return (2 * reach + 1) ** 2 + 1


@dataclass(frozen=True)
class BuiltOutput:
    """An output, and how many channels of logits it needs."""

    apply: Output
    logits: int


def build_output(
    name: OutputName, channels: int, reach: int, smoothness: float = 0.0
) -> BuiltOutput:
    """Return the output of a name for frames of `channels`.

    `reach` is that of the moved ones, `smoothness` of the paced flow.
    """
    taps = 2 * reach + 1
    moved = partial(moved_output, reach=reach)
    by_axis = partial(moved_by_axis_output, reach=reach)
    paced = partial(paced_flow_output, smoothness=smoothness)
    built: dict[OutputName, BuiltOutput] = {
        "sigmoid": BuiltOutput(without_motion(sigmoid_output), channels),
        "residual": BuiltOutput(without_motion(residual_output), channels),
        "moved": BuiltOutput(without_motion(moved), moved_taps(reach) + channels),
        "moved-by-axis": BuiltOutput(without_motion(by_axis), 2 * taps + 1 + channels),
        "flow": BuiltOutput(flow_output, 5 + channels),
        "paced-flow": BuiltOutput(paced, 6 + channels),
    }
    return built[name]
