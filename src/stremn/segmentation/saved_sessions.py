"""Save and load a session's state in one safetensors file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from jaxtyping import Int32
from pydantic import Field, model_validator
from torch import Tensor

from stremn.core.checkpoints import read_tensors, write_tensors
from stremn.core.config import Config, build, read_json
from stremn.core.weights import fingerprint
from stremn.errors import StremnError
from stremn.media.mask_codes import MAX_ID
from stremn.memory.damage import check_memory
from stremn.memory.policies import POLICIES
from stremn.memory.state import MemoryState
from stremn.networks.backbones import STRIDE
from stremn.networks.model import STReMN
from stremn.networks.working_size import WorkingSize

HEADER = "stremn_session"
"""Name of the file's header that holds all but the tensors, as JSON."""

LAYERS = "where"
"""Name of the tensor that is not the memory's."""


Side = Annotated[int, Field(ge=1, le=2**20)]
"""Side of a frame in pixels."""


@dataclass(frozen=True)
class SavedSession:
    """State of a session, and the arguments that it was opened with.

    Attributes:
        settings: arguments that it was opened with (JSON values).
        weights: fingerprint of its network's weights.
        frame: index of the frame it has seen last, -1 before the first.
        ids: the objects it follows.
        frame_size: (height, width) of its frames, once there was one.
        state: the memory, one entry per object; None without objects.
        layers: the likeliest layer of each pixel of the last frame, where a reach is set.
    """

    settings: dict[str, Any]
    weights: int
    frame: int
    ids: tuple[int, ...]
    frame_size: tuple[int, int] | None
    state: MemoryState | None
    layers: Int32[np.ndarray, "height width"] | None


def write_session(path: Path, saved: SavedSession) -> None:
    """Write a session in one move.

    Raises:
        StremnError: the file cannot be written.
    """
    facts = {
        "settings": saved.settings,
        "frame": saved.frame,
        "ids": list(saved.ids),
        "frame_size": saved.frame_size,
        "filled": 0 if saved.state is None else saved.state.filled,
        "weights": saved.weights,
    }
    tensors = {} if saved.state is None else saved.state.tensors()
    held = {name: x.cpu().contiguous() for name, x in tensors.items()}
    if saved.layers is not None:
        held[LAYERS] = torch.from_numpy(saved.layers).contiguous()
    held = held or {"none": torch.zeros(0)}  # safetensors wants at least one
    header = {HEADER: json.dumps(facts)}
    write_tensors(path, held, header)


def read_session(path: Path, device: torch.device | str = "cpu") -> SavedSession:
    """Return what `write_session` wrote, the memory on `device`.

    Raises:
        StremnError: no such file, or no session in it.
    """
    facts, tensors = _read(path)
    try:
        _check_tensors(facts, tensors)
    except ValueError as error:
        raise StremnError(
            f"{path} is damaged: {error}. Load another one, or start again."
        ) from error
    layers = tensors.pop(LAYERS, None)
    state = None
    if facts.ids:
        on_device: dict[str, Any] = {name: x.to(device) for name, x in tensors.items()}
        state = MemoryState(**on_device, filled=facts.filled)
    return SavedSession(
        settings=facts.settings.model_dump(),
        weights=facts.weights,
        frame=facts.frame,
        ids=facts.ids,
        frame_size=facts.frame_size,
        state=state,
        layers=None if layers is None else layers.numpy(),
    )


class SessionSettings(Config):
    """Arguments that a session was opened with; their ranges are checked when it is opened."""

    memory_slots: int
    policy: str
    size: int
    seed: int
    reach: float | None
    precision: Literal["float32", "bfloat16", "float16"]
    every: int = 1


class SessionFacts(Config):
    """What is in a saved session's header; see `SavedSession`."""

    settings: SessionSettings
    frame: int = Field(ge=-1, le=2**62)
    ids: tuple[Annotated[int, Field(ge=1, le=MAX_ID)], ...]
    frame_size: tuple[Side, Side] | None
    filled: int = Field(ge=0)
    weights: int

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if len(set(self.ids)) < len(self.ids):
            raise ValueError("ids must differ from one another")
        if (self.frame < 0) != (self.frame_size is None) or (self.frame < 0 and self.ids):
            raise ValueError("a session without a frame has neither a frame size nor objects")
        return self


def _check_tensors(facts: SessionFacts, tensors: dict[str, Tensor]) -> None:
    """Raise ValueError unless the tensors are a memory, and a label map, that fit the facts."""
    layers = tensors.get(LAYERS)
    if facts.frame_size is None or not facts.ids:
        if layers is not None and bool((layers != 0).any()):
            raise ValueError("it has a label map, but no objects")
        return
    settings = facts.settings
    height, width = WorkingSize.of(*facts.frame_size, settings.size).padded
    if layers is not None:
        if layers.dtype != torch.int32 or tuple(layers.shape) != (height, width):
            raise ValueError(f"its label map is {layers.dtype} of shape {tuple(layers.shape)}")
        if int(layers.min()) < 0 or int(layers.max()) > len(facts.ids):
            raise ValueError("its label map shows objects that it does not have")
    memory = {name: x for name, x in tensors.items() if name != LAYERS}
    grid = (height // STRIDE, width // STRIDE)
    check_memory(memory, len(facts.ids), grid, latest=facts.frame, filled=facts.filled)
    slots = memory["keys"].shape[1]
    if slots < settings.memory_slots:  # a growing memory may have more
        raise ValueError(f"its memory has {slots} slots, expected {settings.memory_slots}")


def check_rule(saved: SavedSession, model: STReMN, path: Path) -> None:
    """Raise StremnError unless the rule of a session has a name, of this model or of all."""
    name = saved.settings["policy"]
    if name not in POLICIES and name not in model.policies:
        raise StremnError(
            f"{path} was saved with a rule that was given as an object ({name!r}). Give it "
            "again: SegmentationSession.load(path, model, policy=rule)."
        )


def check_belongs(saved: SavedSession, model: STReMN, path: Path, *, grows: bool) -> None:
    """Compare a saved session with the network that is to continue it.

    Args:
        saved: from `path`.
        model: the network.
        path: for messages.
        grows: whether the memory may have more slots than the session was opened with.

    Raises:
        StremnError: the session is another network's, or damaged.
    """
    if fingerprint(model) != saved.weights:
        raise StremnError(
            f"{path} was saved with other weights than those given now. Load it with the model "
            "it was made with."
        )
    if saved.state is None:
        return
    own = model.empty_state(1, 1, (STRIDE, STRIDE)).tensors()
    missing = sorted(own.keys() ^ saved.state.tensors().keys())
    if missing:
        raise StremnError(f"{path} is damaged: {missing[0]} is missing, or of another network.")
    for name, x in saved.state.tensors().items():
        if (x.dtype, x.shape[-1]) != (own[name].dtype, own[name].shape[-1]) and x.dim() > 3:
            raise StremnError(
                f"{path} is damaged: {name} has {x.shape[-1]} channels of {x.dtype}, but the "
                f"network makes {own[name].shape[-1]} of {own[name].dtype}."
            )
    slots = saved.settings["memory_slots"]
    if saved.state.slots != slots and not grows:
        raise StremnError(
            f"{path} is damaged: its memory has {saved.state.slots} slots, expected {slots}."
        )


def _read(path: Path) -> tuple[SessionFacts, dict[str, Tensor]]:
    header, tensors = read_tensors(path, "saved session")
    if HEADER not in header:
        raise StremnError(f"{path} holds no saved session.")
    what = f"The header of {path}"
    return build(SessionFacts, read_json(header[HEADER], what), what), tensors
