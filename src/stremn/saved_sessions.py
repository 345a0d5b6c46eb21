"""A session on disk: everything it remembers, in one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stremn.checkpoints import write_atomically
from stremn.errors import StremnError


def write_session(path: Path, facts: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write facts (JSON values) and tensors in one move.

    Raises:
        StremnError: the file cannot be written.
    """
    header = {"stremn_session": json.dumps(facts)}
    held = {name: x.cpu().contiguous() for name, x in tensors.items()}
    held = held or {"none": torch.zeros(0)}  # safetensors wants at least one
    try:
        write_atomically(path, lambda file: save_file(held, file, metadata=header))
    except OSError as error:
        raise StremnError(f"The session could not be saved to {path}: {error}.") from error


def read_session(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the facts and tensors that `write_session` wrote.

    Raises:
        StremnError: no such file, or no session in it.
    """
    if not path.is_file():
        raise StremnError(f"There is no saved session {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("stremn_session")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise StremnError(f"{path} is damaged or no saved session ({error}).") from error
    if header is None:
        raise StremnError(f"{path} holds no saved session.")
    return json.loads(header), tensors
