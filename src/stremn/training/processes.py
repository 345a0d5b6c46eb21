"""Processes and devices of a training run, through accelerate: one or many, CPUs or GPUs."""

from __future__ import annotations

import gc
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

import torch

from stremn.core.hardware import pick_device
from stremn.errors import MissingExtraError


def require_accelerate() -> None:
    """Raise MissingExtraError if accelerate is missing, without importing it."""
    if find_spec("accelerate") is None:
        raise MissingExtraError("accelerate", "train")


def open_accelerator(device: str) -> Any:
    """Return accelerate's `Accelerator` for training on `device`: "auto", "cpu", ...

    Raises:
        StremnError: an unknown device.
        MissingExtraError: accelerate is missing.
    """
    require_accelerate()
    from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

    # A rule that evicts nothing, or a phase that reads no memory, leaves parameters unused.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    # The others wait while the main process validates.
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=4))
    # Processes on CPUs find each other only if accelerate knows that they run on CPUs.
    wanted = pick_device(device).type
    _forget_another_device(wanted)
    # `fit` sets the precision itself, so that one process can run several training runs.
    return Accelerator(
        mixed_precision="no", cpu=wanted == "cpu", kwargs_handlers=[unused, patience]
    )


def _forget_another_device(wanted: str) -> None:
    """Reset accelerate's device if this process trained on another one before."""
    from accelerate.state import AcceleratorState, PartialState

    if not PartialState._shared_state:
        return
    before = PartialState()
    if before.num_processes == 1 and before.device.type != wanted:
        AcceleratorState._reset_state(reset_partial_state=True)


def leave_processes() -> None:
    """Leave the group of training processes; call it last.

    A process that exits without it may abort, because threads of the connection still run.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()  # a network that is wrapped for several processes holds the connection
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
