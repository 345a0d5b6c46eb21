"""Configuration of the training loop, common parts of recipes, and checks of resumed runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from stremn.core.config import Config, Difference, build, differences
from stremn.errors import StremnError
from stremn.moved import with_current_facts

# Keys that decide nothing about what is learned: a resumed run may change them unasked. All but
# `micro_batch` touch the weights by rounding at most; that one also splits losses that are means
# over a batch's objects, and the draws of random rules.
FREE_KEYS = (
    "validation",
    "train.checkpoint_every",
    "train.device",
    "train.log_every",
    "train.micro_batch",
    "train.tensorboard",
    "train.threads",
    "train.time_budget_minutes",
    "train.validate_every",
    "train.workers",
)


class TrainConfig(Config):
    """Optimizer settings. All counts are optimizer steps."""

    steps: PositiveInt
    seed: NonNegativeInt = 0
    optimizer: Literal["adam", "adamw"] = "adamw"
    lr: PositiveFloat
    lr_end: NonNegativeFloat = 0.0
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_steps: NonNegativeInt = 0
    lr_multipliers: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Parameter name prefix -> factor; the longest prefix wins, 0 freezes, "" means the rest."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 0.0
    """Applied to matrices and kernels, never to biases and norms."""
    clip_norm: PositiveFloat | None = None
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay a step of the averaged weights, which are validated and shipped when set."""
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """Of the forward pass. "auto" is bfloat16 where the device is fast at it: decided when the
    training starts, and kept with it."""
    device: Literal["auto", "cpu"] = "auto"
    micro_batch: PositiveInt | None = None
    """Samples in memory at once in each process; gradients accumulate up to the phase's batch."""
    workers: NonNegativeInt = 0
    """Processes that make samples; 0 makes them in the training process."""
    threads: PositiveInt | None = None
    """CPU threads of a process; None leaves PyTorch's choice. On a shared machine 1 is best."""
    log_every: PositiveInt = 20
    checkpoint_every: PositiveInt = 200
    validate_every: PositiveInt = 500
    monitor: str = "J"
    """The validation score by which the best weights are chosen."""
    monitor_mode: Literal["max", "min"] = "max"
    time_budget_minutes: PositiveFloat | None = None
    """Stop cleanly after this long, counted from the start of this call."""
    tensorboard: bool = False


class TrainingRecipe(Config):
    """Base of all recipes, and how they are stored with the weights."""

    train: TrainConfig

    def facts(self) -> dict[str, Any]:
        """Return all but the section `train`, which `fit` keeps itself."""
        return self.model_dump(mode="json", exclude={"train"})

    def completed(self, old: Mapping[str, Any]) -> dict[str, Any]:
        """Return a checkpoint's facts, with defaults for keys that were added later."""
        values = {**with_current_facts(old), "train": self.train.model_dump(mode="json")}
        return build(type(self), values, "The recipe of the checkpoint").facts()


def overridden(overrides: Sequence[str]) -> list[str]:
    """Return dotted keys that requests such as "train.lr=1e-4" name."""
    return [request.partition("=")[0].strip() for request in overrides]


def name_starts_with(name: str, prefix: str) -> bool:
    """Return whether a dotted name is `prefix` or below it; everything is below ""."""
    return prefix == "" or name == prefix or name.startswith(f"{prefix}.")


def _is_accepted(difference: Difference, names: Collection[str]) -> bool:
    """Return whether a difference is below one of `names`, or is an empty table that one of them
    fills."""
    if any(name_starts_with(difference.key, name) for name in names):
        return True
    was_empty = {} in (difference.before, difference.after)
    return was_empty and any(name_starts_with(name, difference.key) for name in names)


MOST_SHOWN = 6
"""Differences that a message names; of more it tells the number."""


def refuse_differences(
    before: Mapping[str, Any], now: Mapping[str, Any], accept: Collection[str]
) -> None:
    """Raise `StremnError` if keys differ that are neither free nor below one in `accept`."""
    allowed = (*FREE_KEYS, *accept)
    changes = differences(with_current_facts(before), with_current_facts(now))
    found = [d for d in changes if not _is_accepted(d, allowed)]
    if found:
        more = len(found) - MOST_SHOWN
        raise StremnError(
            "Cannot resume with another recipe. Changed: "
            + "; ".join(str(difference) for difference in found[:MOST_SHOWN])
            + (f"; and {more} more" if more > 0 else "")
            + ". Restore the recipe, train into another folder, or name each change with --set."
        )
