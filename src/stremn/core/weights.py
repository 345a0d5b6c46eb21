"""Weights on disk: safetensors with the configuration that rebuilds the model in the header.

Other people's weights, which PyTorch pickled, are read as tensors and nothing else.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from stremn.core.checkpoints import read_tensors, write_tensors
from stremn.core.config import read_json
from stremn.errors import StremnError

PLAIN = frozenset({
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
})  # fmt: skip
"""Types of numbers that other people's weights may have."""


def save_weights(model: nn.Module, task: str, config: str, path: Path) -> None:
    """Write the tensors of `model` with its `task` and its `config` (JSON), in one move."""
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    header = {"stremn_task": task, "config": config}
    write_tensors(path, tensors, header)


def read_weights(path: Path, task: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return configuration and tensors of a weights file.

    Raises StremnError if there is no such file, it is damaged, or holds another task's model.
    """
    header, tensors = read_tensors(path, "weights file")
    found = header.get("stremn_task")
    if found != task:
        what = f"a model for {found}" if found else "no model of stremn"
        raise StremnError(f"{path} holds {what}; expected one for {task}.")
    return read_json(header.get("config", ""), f"The configuration in {path}"), tensors


def read_pickled(path: Path, what: str, advice: str) -> dict[str, Tensor]:
    """Return the tensors, by name, of a file that PyTorch pickled; no code in it can run.

    Raises StremnError, with `what` as the file's name and `advice` at its end, if the file cannot
    be read, holds anything but tensors by name, tensors that are not dense or of no `PLAIN` type,
    or numbers that are not finite.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle is a program: damaged, it may raise anything
        reason = re.split(r"\n|\. |\.$", str(error))[0]  # PyTorch adds a page of advice
        if isinstance(error, UnpicklingError):  # and tells how to run the code
            reason = "it is damaged, or holds more than tensors: code in it would not be run"
        raise StremnError(f"{what} cannot be read ({reason}). {advice}") from error
    if not isinstance(found, dict):
        raise StremnError(f"{what} holds no tensors by name, but {type(found).__name__}. {advice}")
    other = [str(n) for n, x in found.items() if not isinstance(n, str) or not torch.is_tensor(x)]
    if other:
        raise StremnError(f"{what} holds more than tensors by name: {', '.join(other)}. {advice}")
    odd = [name for name, x in found.items() if not _holds_plain_numbers(x)]
    if odd:
        raise StremnError(
            f"{what} holds tensors that are not dense or of an unknown type: {', '.join(odd)}. "
            f"{advice}"
        )
    broken = [name for name, x in found.items() if not x.isfinite().all()]
    if broken:
        raise StremnError(
            f"{what} holds numbers that are not finite in {', '.join(broken)}. {advice}"
        )
    return found


def _holds_plain_numbers(x: Tensor) -> bool:
    dense = x.layout is torch.strided and not (x.is_nested or x.is_meta)
    return dense and x.dtype in PLAIN


def check_shapes(build: Callable[[], nn.Module], tensors: dict[str, Tensor], path: Path) -> None:
    """Compare tensors with the model that `build` makes, before memory is allocated for it.

    Raises StremnError if the model cannot be built, or has other tensors.
    """
    try:
        with torch.device("meta"):
            expected = build().state_dict()
    except StremnError:
        raise
    except Exception as error:  # PyTorch and timm have many kinds
        reason = str(error).partition("\n")[0]
        raise StremnError(f"{path} describes a model that cannot be built: {reason}.") from error
    for name in sorted(expected.keys() | tensors.keys()):
        sizes = [tuple(x[name].shape) if name in x else "none" for x in (tensors, expected)]
        if sizes[0] != sizes[1]:
            raise StremnError(
                f"{path} does not fit the model it describes: {name} has the shape {sizes[0]}, "
                f"expected {sizes[1]}."
            )


def fill(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load tensors into a model strictly; raise StremnError if they are not its own."""
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise StremnError(f"{path} does not fit the model it describes: {misfit(error)}") from error


def misfit(error: RuntimeError) -> str:
    """Return the first weight that `load_state_dict` found to be wrong, in its words."""
    return str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)


def fingerprint(model: nn.Module) -> int:
    """Return a checksum of all weights, to tell models apart."""
    total = 0
    for tensor in model.state_dict().values():
        total = zlib.crc32(tensor.detach().float().cpu().contiguous().numpy().tobytes(), total)
    return total
