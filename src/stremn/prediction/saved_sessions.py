"""What the file of a saved prediction session holds, and whether it fits together."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from stremn.core.config import Config
from stremn.memory.damage import check_memory
from stremn.prediction.config import PredictionConfig
from stremn.prediction.model import Past

Side = Annotated[int, Field(ge=1, le=2**20)]
"""Side of a frame in pixels."""


class SessionFacts(Config):
    """What is in a saved session's header."""

    format: int
    config: PredictionConfig
    frames_seen: int = Field(ge=0, le=2**62)
    filled: int = Field(ge=0)
    shape: tuple[Side, Side] | None
    side: Side | None = None
    score: bool = False
    surprise: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _belongs_together(self) -> SessionFacts:
        if (self.frames_seen == 0) != (self.shape is None):
            raise ValueError("a session has a frame size once it has seen a frame")
        return self


def session_parts(
    facts: SessionFacts, tensors: dict[str, Tensor], empty: Past, size: tuple[int, int]
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Return memory, carried state and window of a saved session, in their order.

    Raises:
        ValueError: they do not fit the facts, or `empty`, which is the model's.
    """
    config = facts.config
    memory = {f.name: f"memory.{f.name}" for f in fields(empty.memory)}
    memory = {name: long for name, long in memory.items() if name in empty.memory.tensors()}
    carried = [f"carried.{i}" for i in range(len(empty.carried))]
    window = [f"window.{i}" for i in range(min(facts.frames_seen, config.stack))]
    other = sorted(tensors.keys() ^ {*memory.values(), *carried, *window})
    if other:
        raise ValueError(f"{other[0]} is missing or unknown")
    held = {name: tensors[long] for name, long in memory.items()}
    own = empty.memory.tensors()
    check_memory(
        held, 1, (own["keys"].shape[2], own["keys"].shape[3]),
        latest=facts.frames_seen - 1, filled=facts.filled,
    )  # fmt: skip
    picture = (config.channels, *size)
    expected = {name: (x.shape[-1:], x.dtype) for name, x in own.items()}
    found = {name: (x.shape[-1:], x.dtype) for name, x in held.items()}
    wide = ("keys", "values", "update_keys")
    if any(expected[name] != found[name] for name in wide):
        raise ValueError("its memory is of another number of channels, or type")
    if held["keys"].shape[1] != own["keys"].shape[1] and not config.growth:
        raise ValueError(f"its memory has {held['keys'].shape[1]} slots")
    for name, shape in [
        *((name, tuple(x.shape)) for name, x in zip(carried, empty.carried, strict=True)),
        *((name, picture) for name in window),
    ]:
        x = tensors[name]
        if tuple(x.shape) != shape or x.dtype != torch.float32:
            raise ValueError(f"{name} is {x.dtype} of shape {tuple(x.shape)}")
    pictures = {name: tensors[name] for name in window}
    if any(bool((x < 0).any() | (x > 1).any()) for x in pictures.values()):
        raise ValueError("its frames are not in [0, 1]")
    return held, {name: tensors[name] for name in carried}, pictures
