"""A SAM session on disk: all that it remembers, in one safetensors file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stremn.core.checkpoints import read_tensors, under, write_tensors
from stremn.errors import StremnError
from stremn.memory.state import MemoryState
from stremn.sam.slots import ObjectSlots

HEADER = "stremn_sam_session"
"""Name of the file's header that holds all but the tensors, as JSON."""

PLACES = "places"


@dataclass(frozen=True)
class SavedSam:
    """State of a session, and the arguments that it was opened with.

    settings: arguments that it was opened with (JSON values).
    weights: fingerprint of its model's.
    """

    settings: dict[str, Any]
    weights: int
    frame: int
    frame_size: tuple[int, int] | None
    memories: dict[int, ObjectSlots]
    shape: tuple[int, ...] | None
    places: Tensor | None


def write_sam(path: Path, saved: SavedSam) -> None:
    """Write a session in one move.

    Raises:
        StremnError: the file cannot be written.
    """
    objects = []
    tensors = {} if saved.places is None else {PLACES: saved.places}
    for name, memory in saved.memories.items():
        objects.append(
            {
                "id": name,
                "slots": memory.slots,
                "filled": memory.state.filled,
                "sharing": list(memory.sharing),
            }
        )
        tensors |= {f"{name}.state.{k}": x for k, x in memory.state.tensors().items()}
        tensors |= {f"{name}.pointers.{t}": x for t, x in memory.pointers.items()}
        tensors |= {f"{name}.given.{t}": x for t, x in memory.given.items()}
    facts = {
        "settings": saved.settings,
        "weights": saved.weights,
        "frame": saved.frame,
        "frame_size": saved.frame_size,
        "shape": saved.shape,
        "objects": objects,
    }
    held = {name: x.detach().to("cpu", copy=True).contiguous() for name, x in tensors.items()}
    held = held or {"none": torch.zeros(0)}  # safetensors wants at least one
    header = {HEADER: json.dumps(facts)}
    write_tensors(path, held, header)


def read_sam(path: Path, device: torch.device) -> SavedSam:
    """Return what `write_sam` wrote, tensors on `device`.

    Raises:
        StremnError: no such file, or no session of a SAM model in it.
    """
    header, tensors = read_tensors(path, "saved session")
    if HEADER not in header:
        raise StremnError(f"{path} holds no saved session of a SAM model.")
    facts = json.loads(header[HEADER])
    tensors = {name: x.to(device) for name, x in tensors.items()}
    memories = {}
    for one in facts["objects"]:
        own = under(tensors, str(one["id"]))
        state: dict[str, Any] = under(own, "state")
        memories[one["id"]] = ObjectSlots(
            one["slots"],
            MemoryState(**state, filled=one["filled"]),
            {int(t): x for t, x in under(own, "pointers").items()},
            {
                int(t): x
                for t, x in sorted(under(own, "given").items(), key=lambda item: int(item[0]))
            },
            tuple(one["sharing"]),
        )
    size, shape = facts["frame_size"], facts["shape"]
    return SavedSam(
        facts["settings"],
        facts["weights"],
        facts["frame"],
        None if size is None else (size[0], size[1]),
        memories,
        None if shape is None else tuple(shape),
        tensors.get(PLACES),
    )
