"""`fit`: minimize a clip loss, independent of the task, in one or several processes.

A step is a function of the weights, the optimizer and its own number: the samples of step s are
given by s alone, and every random generator is seeded with (seed, s, process) before it. So a
checkpoint needs no generator state and no loader state, only the step, and a run that was killed
anywhere and resumed ends with the same weights as one that was not.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from stremn.core.checkpoints import Checkpoint
from stremn.core.config import build
from stremn.core.hardware import is_out_of_memory, keep_freed_memory, precision_name
from stremn.core.signals import stop_requests
from stremn.errors import StremnError
from stremn.training.config import TrainConfig, refuse_differences
from stremn.training.loading import Clock, Phase, batches, first_micro_batch
from stremn.training.log import Means, TrainingLog
from stremn.training.optimization import NotFiniteError, Run, learning_rate, seed_step
from stremn.training.processes import open_accelerator
from stremn.training.storage import (
    BEST,
    CHECKPOINT,
    LAST,
    Export,
    NoStorage,
    RunFolder,
    Storage,
)

__all__ = ["BEST", "CHECKPOINT", "LAST", "FitResult", "Phase", "fit"]

logger = logging.getLogger("stremn.training.fit")

NEVER = -1
"""Step at which weights were scored that were not."""


@dataclass(frozen=True)
class FitResult:
    """How a training ended. `model` holds the weights to ship: the average where there is one."""

    model: nn.Module
    step: int
    best: float | None
    stopped: Literal["finished", "interrupted", "time budget"]
    seconds: float

    def __str__(self) -> str:
        best = "" if self.best is None else f", best validation score {self.best:.4g}"
        return f"{self.stopped} at step {self.step}{best}"


def fit(
    model: nn.Module,
    phases: Sequence[Phase[Any, Any]],
    config: TrainConfig,
    *,
    out: Path | None,
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    pictures: Callable[[nn.Module, Path], None] | None = None,
    export: Export | None = None,
    resume: bool = False,
    recipe: Mapping[str, Any] | None = None,
    accept: Collection[str] = (),
    complete: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    bar: bool = True,
) -> FitResult:
    """Train `model` in place through `phases`, one after the other.

    Writes into `out`: `checkpoint.safetensors` (everything needed to resume), `best.safetensors`
    and `last.safetensors` (weights, which `export` replaces in one move), `log.csv`,
    `validation.csv`, and `recipe.json` (`recipe` and `config`, once they are known to fit what is
    there). With `out` None nothing is written, not even pictures: the result holds the model.
    `validate` and `pictures` get the weights to ship, in evaluation mode, in the main process.
    With `bar`, a terminal shows a progress bar.

    With `resume`, continues from the checkpoint in `out` (from the start where there is none). The
    `recipe` must then equal the one of the checkpoint, after `complete` has given it the keys that
    are newer than the checkpoint, except for `FREE_KEYS` and the dotted keys in `accept`.

    Raises `StremnError` if the phases do not fill the steps, if `out` holds a training that is not
    to be resumed or another recipe's, and on a loss or gradient that is not finite.
    """
    _check_phases(phases, config)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    accelerator = open_accelerator(config.device)
    main = accelerator.is_main_process
    storage: Storage = NoStorage() if out is None else RunFolder(out, export, recipe)
    with storage.locked() if main else nullcontext():
        saved = storage.checkpoint(resume=resume)
        config = _with_precision(config, saved, accelerator.device)
        run = Run(model, config, accelerator)
        if main:
            logger.info("%s", _size(model))
        if saved is not None:
            before = complete(saved.facts["recipe"] or {})
            # Through the model, so that a newer key has its default here too.
            train = build(TrainConfig, saved.facts["train"], "The settings in the checkpoint")
            before["train"] = train.model_dump(mode="json")
            now = {**(recipe or {}), "train": config.model_dump(mode="json")}
            refuse_differences(before, now, accept)
            run.restore(saved)
            if _judged_by(before) != _judged_by(now):
                # Scores of another validation say nothing about these. The weights that are here
                # are to be scored again too, should no step be left.
                run.best, run.scored = None, NEVER
                logger.info(
                    "validation differs from the earlier run: the best checkpoint is chosen again"
                )
            logger.info("resumed at step %d of %d", run.step, config.steps)
        _rehearse(run, phases)
        if main:
            storage.save_recipe(config)
        hooks = _Hooks(storage, validate, pictures)
        log = TrainingLog(out, run.step, config.steps, config.tensorboard, bar) if main else None
        with log or nullcontext(), _stop_requests() as stop:
            return _train(run, phases, hooks, log, stop)


def _judged_by(recipe: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what decides which weights are the best."""
    train = recipe["train"]
    return recipe.get("validation"), train.get("monitor"), train.get("monitor_mode")


@dataclass(frozen=True)
class _Hooks:
    """Storage and callbacks of a run."""

    storage: Storage
    validate: Callable[[nn.Module], Mapping[str, float]] | None
    pictures: Callable[[nn.Module, Path], None] | None


def _train(
    run: Run,
    phases: Sequence[Phase[Any, Any]],
    hooks: _Hooks,
    log: TrainingLog | None,
    stop: threading.Event,
) -> FitResult:
    config, started = run.config, time.monotonic()
    stopped: Literal["finished", "interrupted", "time budget"] = "finished"
    means, clock = Means(), Clock()
    due = run.step % config.validate_every == 0 or run.step == config.steps
    if due and run.scored != run.step:  # the run before was killed while it validated
        _validate(run, hooks, log)
    for phase, micro_batches in batches(phases, run.step, config, run.accelerator, clock):
        try:
            scalars = run.update(phase, micro_batches)
        except NotFiniteError as error:
            raise _stop_not_finite(run, hooks.storage, micro_batches, error) from None
        means.add(scalars)
        clock.step_done()
        if run.step % config.log_every == 0:
            row = _log_row(run, means, clock)
            if log is not None:
                log.train(run.step, row)
        if log is not None:
            log.advance(run.step)
        if run.step % config.validate_every == 0:
            _validate(run, hooks, log)
        elif run.step % config.checkpoint_every == 0:
            _save(run, hooks)
        clock.pause_over()
        request = _agreed(run, _stop_request(config, started, stop))
        if request and run.step < config.steps:
            stopped = "interrupted" if request == 1 else "time budget"
            logger.info("stopped at step %d: %s; continue with --resume", run.step, stopped)
            break
    if run.scored != run.step:
        if stopped == "interrupted":
            _save(run, hooks)
        else:
            _validate(run, hooks, log)
    run.accelerator.wait_for_everyone()
    return FitResult(run.shipped, run.step, run.best, stopped, time.monotonic() - started)


def _validate(run: Run, hooks: _Hooks, log: TrainingLog | None) -> None:
    """Score the weights to ship and keep them if they are the best, between two checkpoints.

    The first is there should scoring fail, the second knows the best score.
    """
    if hooks.validate or hooks.pictures:
        _save(run, hooks)
    if run.accelerator.is_main_process:
        seed_step(run.config.seed, run.step, 0)
        model = run.shipped.eval()
        with torch.no_grad():
            scores = hooks.validate(model) if hooks.validate else {}
            if hooks.pictures:
                hooks.storage.save_pictures(partial(hooks.pictures, model), run.step)
        if log is not None and scores:
            log.validation(run.step, scores)
        if scores and _is_better(run.config, _monitored(run.config, scores), run.best):
            run.best = scores[run.config.monitor]
            hooks.storage.save_best(model)
    run.scored = run.step
    _save(run, hooks)


def _save(run: Run, hooks: _Hooks) -> None:
    if run.accelerator.is_main_process:
        hooks.storage.save(run)
    run.accelerator.wait_for_everyone()


def _monitored(config: TrainConfig, scores: Mapping[str, float]) -> float:
    if config.monitor not in scores:
        raise StremnError(
            f"train.monitor is {config.monitor!r}, but validation reports {', '.join(scores)}."
        )
    return scores[config.monitor]


def _is_better(config: TrainConfig, score: float, best: float | None) -> bool:
    if best is None or math.isnan(score):
        return not math.isnan(score)
    return score > best if config.monitor_mode == "max" else score < best


def _log_row(run: Run, means: Means, clock: Clock) -> dict[str, float]:
    row = means.take()
    row["loss"] = _mean_over_processes(run, row["loss"])
    return row | {"lr": learning_rate(run.config, run.step - 1)} | clock.take()


def _stop_not_finite(
    run: Run, storage: Storage, micro_batches: Sequence[Any], error: NotFiniteError
) -> StremnError:
    """Save the batch for inspection and return StremnError. The checkpoint stays as it is."""
    return StremnError(
        f"Training stopped at step {run.step}: loss {error.scalars['loss']:g}, gradient norm "
        f"{error.scalars['gradient_norm']:g}. {storage.save_batch(run, micro_batches)} "
        "A lower train.lr, a train.clip_norm or train.precision=float32 usually helps."
    )


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Turn SIGTERM and the first Ctrl-C into an event; a second Ctrl-C stops at once."""
    stop = threading.Event()

    def request(number: int) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        logger.info("stop requested: finishing this step")
        stop.set()

    with stop_requests(request):
        yield stop


def _stop_request(config: TrainConfig, started: float, stop: threading.Event) -> int:
    """Return 0 to continue, 1 after a signal, 2 when the time is up."""
    if stop.is_set():
        return 1
    budget = config.time_budget_minutes
    return 2 if budget is not None and time.monotonic() - started > budget * 60 else 0


def _agreed(run: Run, request: int) -> int:
    """Return the largest request of all processes, so that they decide alike."""
    if run.accelerator.num_processes == 1:
        return request
    mine = torch.tensor([request], device=run.accelerator.device)
    return int(run.accelerator.gather(mine).max())


def _mean_over_processes(run: Run, value: float) -> float:
    if run.accelerator.num_processes == 1:
        return value
    mine = torch.tensor([value], dtype=torch.float32, device=run.accelerator.device)
    return float(run.accelerator.gather(mine).mean())


def _with_precision(
    config: TrainConfig, saved: Checkpoint | None, device: torch.device
) -> TrainConfig:
    """Resolve "auto": the precision that the training began with, or what suits the device."""
    name = config.precision
    if name == "auto" and saved is not None:
        name = saved.facts["train"].get("precision", name)
    return config.model_copy(update={"precision": precision_name(name, device)})


def _check_phases(phases: Sequence[Phase[Any, Any]], config: TrainConfig) -> None:
    total = sum(phase.steps for phase in phases)
    if total != config.steps:
        raise StremnError(
            f"The phases have {total} steps together, but train.steps is {config.steps}."
        )


def _rehearse(run: Run, phases: Sequence[Phase[Any, Any]]) -> None:
    """Run the first step of each remaining phase without its update, to find errors early.

    A later phase may take larger batches: what does not fit should fail now, not after hours. Clips
    of a later batch may hold more objects, and need more, than these.
    """
    first = 0
    for phase in phases:
        first += phase.steps
        if first <= run.step:
            continue
        try:
            run.rehearse(phase, first_micro_batch(phase, run.config, run.accelerator))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            own = phase.batch // run.accelerator.num_processes
            raise StremnError(
                f"Phase {phase.name!r}: {min(run.config.micro_batch or own, own)} of its samples "
                f"at once do not fit into the memory of {run.accelerator.device}. A smaller "
                "train.micro_batch gives nearly the same training, more slowly; a smaller batch, "
                "size or number of frames gives another."
            ) from error


def _size(model: nn.Module) -> str:
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return f"{total:,} parameters, {trained:,} of them trained"
