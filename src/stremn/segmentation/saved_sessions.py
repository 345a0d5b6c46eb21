"""A session on disk: everything it remembers, in one safetensors file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int32
from safetensors.torch import save_file
from torch import Tensor

from stremn.core.checkpoints import read_tensors, write_atomically
from stremn.errors import StremnError
from stremn.memory.operations import MemoryState

HEADER = "stremn_session"
"""Name of the file's header that holds all but the tensors, as JSON."""

WHERE = "where"
"""Name of the tensor that is not the memory's."""


@dataclass(frozen=True)
class SavedSession:
    """What a session remembers, and how it was opened.

    Attributes:
        settings: arguments that it was opened with (JSON values).
        weights: fingerprint of its network's weights.
        frame: index of the frame it has seen last, -1 before the first.
        ids: the objects it follows.
        frame_size: (height, width) of its frames, once there was one.
        state: the memory, one entry per object; None without objects.
        where: the likeliest layer of each pixel of the last frame, where a reach is set.
    """

    settings: dict[str, Any]
    weights: int
    frame: int
    ids: tuple[int, ...]
    frame_size: tuple[int, int] | None
    state: MemoryState | None
    where: Int32[np.ndarray, "height width"] | None


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
    if saved.where is not None:
        held[WHERE] = torch.from_numpy(saved.where).contiguous()
    held = held or {"none": torch.zeros(0)}  # safetensors wants at least one
    header = {HEADER: json.dumps(facts)}
    write_atomically(path, lambda file: save_file(held, file, metadata=header))


def read_session(path: Path, device: torch.device | str = "cpu") -> SavedSession:
    """Return what `write_session` wrote, the memory on `device`.

    Raises:
        StremnError: no such file, or no session in it.
    """
    facts, tensors = _read(path)
    where = tensors.pop(WHERE, None)
    size = facts["frame_size"]
    state = None
    if facts["ids"]:
        on_device: dict[str, Any] = {name: x.to(device) for name, x in tensors.items()}
        state = MemoryState(**on_device, filled=facts["filled"])
    return SavedSession(
        settings=facts["settings"],
        weights=facts["weights"],
        frame=facts["frame"],
        ids=tuple(facts["ids"]),
        frame_size=None if size is None else (size[0], size[1]),
        state=state,
        where=None if where is None else where.numpy(),
    )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    header, tensors = read_tensors(path, "saved session")
    if HEADER not in header:
        raise StremnError(f"{path} holds no saved session.")
    return json.loads(header[HEADER]), tensors
