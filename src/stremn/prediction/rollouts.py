"""Roll-outs of predictors, and checks of the frames that they start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from stremn.errors import StremnError


@dataclass(frozen=True)
class Rollout:
    """Predicted frames: `frames[:, i]` predicts the clip's frame `first + i`."""

    frames: Float[Tensor, "b n c height width"]
    first: int


class Forecaster(Protocol):
    """A trainable predictor: our model or a recurrent baseline."""

    def rollout(
        self,
        frames: Float[Tensor, "b t c height width"],
        observed: int,
        future: int,
        silent: int = 0,
    ) -> Rollout:
        """Predict one step ahead over the observed frames, then `future` frames freely.

        Only the first `observed` frames are looked at. The first `silent` predictions are left out,
        but never one of the `future` frames.
        """
        ...


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
