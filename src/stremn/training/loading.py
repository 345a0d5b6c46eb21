"""Phases of a training, and each process's share of every batch."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from stremn.core.signals import stopping_signals
from stremn.errors import StremnError
from stremn.training.config import TrainConfig
from stremn.training.loss_report import LossReport

logger = logging.getLogger("stremn.training.fit")


class Batch(Protocol):
    """A batch: a dataclass of tensors that can move to a device."""

    def to(self, device: torch.device) -> Self:
        """Copy to a device."""
        ...


SampleT = TypeVar("SampleT")
BatchT = TypeVar("BatchT", bound=Batch)

BatchLoss = Callable[[nn.Module, BatchT, float], LossReport]
"""(model, batch, progress in [0, 1]) -> a loss that is a mean over the batch's samples."""


@dataclass(frozen=True)
class Phase(Generic[SampleT, BatchT]):
    """A part of training with its own data and loss.

    `dataset[i]` for i in [0, steps x batch) must depend on i alone; each is used exactly once.
    """

    name: str
    steps: int
    batch: int
    dataset: Dataset[SampleT]
    collate: Callable[[list[SampleT]], BatchT]
    clip_loss: BatchLoss[BatchT]


class ProcessPlace(Protocol):
    """Index and number of processes; accelerate's `Accelerator` is one."""

    @property
    def num_processes(self) -> int:
        """How many there are."""
        ...

    @property
    def process_index(self) -> int:
        """Which one this is, from 0."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...


def batches(
    phases: Sequence[Phase[Any, Any]],
    done: int,
    config: TrainConfig,
    place: ProcessPlace,
    clock: Clock,
) -> Iterator[tuple[Phase[Any, Any], list[Any]]]:
    """Yield each step's phase and this process's micro-batches on its device, after `done` steps.

    Raises `StremnError` if a batch cannot be split evenly.
    """
    first = 0
    for phase in phases:
        start = max(done - first, 0)
        first += phase.steps
        if start >= phase.steps:
            continue
        if place.process_index == 0:
            logger.info("phase %s: %d steps of %d samples", phase.name, phase.steps, phase.batch)
        shares = _share_of_process(phase, start, config.micro_batch, place)
        loader = iter(
            _loader(phase, [indices for step in shares for indices in step], config, place)
        )
        try:
            for step in shares:
                with clock.waiting(), _in_the_workers_words():
                    micro_batches = [next(loader).to(place.device) for _ in step]
                yield phase, micro_batches
        finally:
            # An error's traceback would keep the loader, and the process would wait at its end for
            # workers that no signal ends (see below). PyTorch has no public way to end them.
            end_workers = getattr(loader, "_shutdown_workers", None)
            if end_workers is not None:
                end_workers()


def first_micro_batch(phase: Phase[Any, Any], config: TrainConfig, place: ProcessPlace) -> Any:
    """Return this process's first micro-batch of a phase, on its device.

    Raises `StremnError` if the phase's batch cannot be split evenly.
    """
    steps = _share_of_process(replace(phase, steps=1), 0, config.micro_batch, place)
    samples = [phase.dataset[index] for index in steps[0][0]]
    return phase.collate(samples).to(place.device)


def _share_of_process(
    phase: Phase[Any, Any], start: int, micro_batch: int | None, place: ProcessPlace
) -> list[list[list[int]]]:
    """Sample indices of this process: a list of micro-batches for each step from `start`.

    Sample j of a step belongs to process j mod world: no sample is used twice.
    """
    world, rank = place.num_processes, place.process_index
    own = phase.batch // world
    micro = min(micro_batch or own, own)
    if phase.batch % world or own % micro:
        parts = f" in micro-batches of {micro_batch}" if micro_batch else ""
        raise StremnError(
            f"Phase {phase.name!r}: a batch of {phase.batch} cannot be split evenly over {world} "
            f"process(es){parts}. Change the batch (stages.N.batch) or train.micro_batch."
        )
    steps = []
    for step in range(start, phase.steps):
        indices = [step * phase.batch + j for j in range(rank, phase.batch, world)]
        steps.append([indices[i : i + micro] for i in range(0, own, micro)])
    return steps


def _loader(
    phase: Phase[Any, Any], batches: list[list[int]], config: TrainConfig, place: ProcessPlace
) -> DataLoader[Any]:
    return DataLoader(
        phase.dataset,
        batch_sampler=batches,
        collate_fn=phase.collate,
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        pin_memory=place.device.type == "cuda",  # then copies to it do not wait
        worker_init_fn=_leave_signals_to_parent,
        # Its own generator: drawing the workers' seed must not move the global one.
        generator=torch.Generator().manual_seed(config.seed),
    )


@contextmanager
def _in_the_workers_words() -> Iterator[None]:
    """Remove PyTorch's prefix and traceback from a worker's error."""
    try:
        yield
    except StremnError as error:
        _, _, said = str(error).rpartition(f"{StremnError.__name__}: ")
        raise StremnError(said.strip()) from error


def _leave_signals_to_parent(_: int) -> None:
    """Let the main process finish its step and write a checkpoint.

    Ctrl-C and most job systems signal the whole group; a worker that obeyed would take the main
    process down in the middle of its step. Workers end when their loader does.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in stopping_signals()[1:]:
        signal.signal(number, signal.SIG_IGN)


class Clock:
    """Seconds per step, and the share spent waiting for data."""

    def __init__(self) -> None:
        self._mark = time.monotonic()
        self._total = self._waited = 0.0
        self._steps = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        begin = time.monotonic()
        yield
        self._waited += time.monotonic() - begin

    def step_done(self) -> None:
        """Count the time since the last mark as one step."""
        now = time.monotonic()
        self._total += now - self._mark
        self._mark = now
        self._steps += 1

    def pause_over(self) -> None:
        """Exclude the time since the last step (validation, checkpoints)."""
        self._mark = time.monotonic()

    def take(self) -> dict[str, float]:
        """Return the means since the last call."""
        total, steps = max(self._total, 1e-9), max(self._steps, 1)
        means = {"seconds_per_step": total / steps, "data_wait": self._waited / total}
        self._total = self._waited = 0.0
        self._steps = 0
        return means
