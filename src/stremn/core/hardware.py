"""Choose device and precision: what the user names, else what suits the hardware."""

from __future__ import annotations

import ctypes
import functools
import logging
import sys

import torch

from stremn.errors import StremnError

logger = logging.getLogger(__name__)

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def pick_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is CUDA, else MPS, else the CPU.

    Raises StremnError for a device that is unknown, not there, or keeps no numbers.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (
        RuntimeError,
        AssertionError,
        ImportError,
        TypeError,
    ) as error:  # as each backend has it
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise StremnError(
            f"The device {name!r} cannot be used ({reason}). Use auto, cpu, cuda or mps."
        ) from error
    if device.type == "meta":
        raise StremnError(
            f"The device {name!r} cannot be used: it has shapes but no numbers. "
            "Use auto, cpu, cuda or mps."
        )
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the number type to compute in; "auto" is bfloat16 where it is fast, else float32.

    Raises StremnError for an unknown name.
    """
    if name == "auto":
        return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    if name not in PRECISIONS:
        raise StremnError(f"Unknown precision {name!r}; known: auto, {', '.join(PRECISIONS)}.")
    if name == "bfloat16" and device.type == "cpu" and not has_fast_bfloat16(device):
        _warn_of_slow_bfloat16()
    return PRECISIONS[name]


@functools.cache
def _warn_of_slow_bfloat16() -> None:
    """Warn once per process."""
    logger.warning(
        "This processor is not known to multiply bfloat16 (AMX, AVX512-BF16): it may take twenty "
        "to a hundred times as long as float32. Use float32, or auto."
    )


def precision_name(name: str, device: torch.device) -> str:
    """Return what `pick_precision` chooses, as a name: "auto" decided, other names checked."""
    return str(pick_precision(name, device)).removeprefix("torch.")


@functools.cache
def keep_freed_memory() -> bool:
    """Make this process keep freed memory for its next allocations; return whether it does.

    A step frees and allocates the same large tensors again and again. glibc gives each back to
    the system and asks for it again, and the system then clears every page: a sixth of a step's
    time on a CPU. Only glibc needs it, and only once per process; others return False.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    largest_number_of_mappings, trim_threshold = -4, -1  # M_MMAP_MAX, M_TRIM_THRESHOLD
    return bool(mallopt(largest_number_of_mappings, 0) and mallopt(trim_threshold, 1 << 30))


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 in hardware (CPUs: AMX or AVX512-BF16)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return False


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed; PyTorch says so only in the message."""
    said = (
        "can't allocate memory",
        "not enough memory",  # as PyTorch has it on Windows
        "out of memory",
        "bad_alloc",  # C++ libraries
        "could not create a primitive",  # oneDNN's convolutions
        "can't start new thread",
    )
    return isinstance(error, MemoryError) or any(words in str(error) for words in said)
