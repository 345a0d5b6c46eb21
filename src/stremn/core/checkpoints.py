"""Checkpoints: one safetensors file that holds tensors, and JSON in its header for the rest.

One file can be replaced atomically, and reading it never runs code (no pickle).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from stremn.core.atomic_files import remove_leftovers, replacing, writing
from stremn.core.config import read_json
from stremn.errors import StremnError

_CHECKSUM = "stremn_checksum"
_FACTS = "stremn_checkpoint"  # key of the JSON in the file's header
_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """Named tensors on the CPU and facts that JSON can hold."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one move.

    Whoever reads `path` sees the old file or the new one, never a part, even after a crash.

    Raises:
        StremnError: no permission, disk full, no place for a file; an earlier file is unchanged.
    """
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    with replacing(path) as temporary:
        write(temporary)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write a safetensors file atomically, with a checksum of all that it holds.

    Raises:
        StremnError: as `write_atomically`.
    """
    whole = {**header, _CHECKSUM: checksum(tensors, header)}
    # Not `save_file`: it writes beside the file under a name of its own, which a kill leaves there,
    # for nobody but the user to read.
    header_first = _in_order(save(dict(tensors), metadata=whole))

    def write(file: Path) -> None:
        with file.open("wb") as stream:
            stream.writelines(header_first)

    write_atomically(path, write)


def _in_order(content: bytes) -> tuple[bytes, memoryview]:
    """Return the header, sorted, and the rest of a safetensors file.

    The library's order differs from run to run, and equal content should be equal files.
    """
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of eight
    return len(header).to_bytes(8, "little") + header, memoryview(content)[8 + size :]


def read_tensors(path: Path, what: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the header and the tensors, on the CPU, of a safetensors file.

    Raises StremnError, which calls the file a `what`, if there is none, it cannot be read, its
    checksum (if it has one) is not that of its content, or a number in it is not finite.
    """
    if not path.is_file():
        raise StremnError(f"There is no {what} {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # damaged, it may raise anything
        reason = " ".join(str(error).split())
        raise _damaged(path, what, reason) from error
    expected = header.pop(_CHECKSUM, None)
    if expected is not None and expected != checksum(tensors, header):
        raise _damaged(path, what, "its content does not have its checksum")
    broken = [n for n, x in tensors.items() if x.is_floating_point() and not x.isfinite().all()]
    if broken:
        raise _damaged(path, what, f"numbers in {broken[0]} are not finite")
    return header, tensors


def _damaged(path: Path, what: str, reason: str) -> StremnError:
    return StremnError(
        f"{path} is damaged or not a {what} ({reason}). If it came from elsewhere, copy or "
        "download it again."
    )


def checksum(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    """Return the SHA-256 of tensors on the CPU, their names, types and shapes, and the header."""
    digest = hashlib.sha256(json.dumps(sorted(header.items())).encode())
    for name, tensor in sorted(tensors.items()):
        facts = json.dumps([name, str(tensor.dtype), list(tensor.shape)])
        digest.update(facts.encode())
        if tensor.numel():
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically; tensors may live on any device."""
    # A clone each: safetensors refuses tensors that share memory, and tied weights do.
    tensors = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in checkpoint.tensors.items()
    }
    header = {_FACTS: json.dumps({"version": _VERSION, **checkpoint.facts})}
    write_tensors(path, tensors, header)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; raise `StremnError` if the file is missing, broken or something else."""
    header, tensors = read_tensors(path, "checkpoint")
    if _FACTS not in header:
        raise StremnError(
            f"{path} is not a training checkpoint: it lacks the {_FACTS!r} header. "
            "Weights alone cannot be resumed; start from them instead."
        )
    facts = read_json(header[_FACTS], f"The header of {path}")
    version = facts.pop("version", None)
    if version != _VERSION:
        raise StremnError(
            f"{path} was written by another version of stremn: its format is {version!r}, expected "
            f"{_VERSION}. Resume it with that version, or start from its weights instead."
        )
    return Checkpoint(tensors, facts)


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Select the tensors whose name starts with `prefix` and a dot, without that part."""
    return {
        name.removeprefix(f"{prefix}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{prefix}.")
    }


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, model: nn.Module, prefix: str
) -> dict[str, Tensor]:
    """Name the optimizer's moments after their parameters: `prefix.exp_avg.<parameter>`."""
    return {
        f"{prefix}.{moment}.{name}": tensor
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for moment, tensor in optimizer.state[parameter].items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Undo `optimizer_tensors`, given the tensors without their prefix.

    Moments take their parameter's device and memory format, so that a resumed step is as fast.
    """
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        moment, _, parameter_name = name.partition(".")
        parameter = parameters[parameter_name]
        if tensor.shape == parameter.shape and moment != "step":
            tensor = torch.empty_like(parameter, dtype=tensor.dtype).detach().copy_(tensor)
        optimizer.state[parameter][moment] = tensor
