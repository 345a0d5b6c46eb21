"""Time training steps on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from stremn.core.hardware import keep_freed_memory, pick_device, precision_name
from stremn.training.config import TrainConfig


class StepTimer:
    """Runs steps like a training, with zero updates: the weights do not change."""

    def __init__(self, model: nn.Module, train: TrainConfig) -> None:
        """Bring `model` to the device of the training, in training mode."""
        if train.threads is not None:
            torch.set_num_threads(train.threads)
        keep_freed_memory()
        self.device = pick_device(train.device)
        self.precision = precision_name(train.precision, self.device)
        self.model = model.to(self.device).train()

    def seconds(self, loss: Callable[[], Tensor]) -> float:
        """Time one step: the loss, its gradients, and a zero update."""
        weights = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(weights, lr=0.0)
        begin = time.monotonic()
        reduced = self.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=reduced):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic() - begin


def seconds_per_item(items: Dataset[Any], length: int, count: int) -> float:
    """Make about `count` items, spread over a data set of `length`; return the mean time of one."""
    numbers = range(0, length, max(1, length // count))
    begin = time.monotonic()
    for number in numbers:
        items[number]
    return (time.monotonic() - begin) / len(numbers)
