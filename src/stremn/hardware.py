"""What to run on, and how precisely: decided by the hardware, unless the user says."""

from __future__ import annotations

import torch

from stremn.errors import StremnError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is CUDA, else MPS, else the CPU.

    Raises StremnError for a device that is unknown or not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise StremnError(
            f"The device {name!r} cannot be used ({reason}). Use auto, cpu, cuda or mps."
        ) from error
    return device


def inference_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the number type to run in; "auto" is bfloat16 where it is fast, else float32.

    Raises StremnError for an unknown name.
    """
    if name == "auto":
        return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    if name not in PRECISIONS:
        raise StremnError(f"Unknown precision {name!r}; known: auto, {', '.join(PRECISIONS)}.")
    return PRECISIONS[name]


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware (CPUs: AMX or AVX512-BF16)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return False
