"""`fit`: minimize a clip loss. It knows no task, and any number of processes run it unchanged.

A step is a function of the weights, the optimizer and its own number: the samples of step s are
given by s alone, and every random generator is seeded with (seed, s, process) before it. So a
checkpoint needs no generator state and no loader state, only the step, and a run that was killed
anywhere and resumed ends with the same weights as one that was not.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import random
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, Generic, Literal, Protocol, Self, TypeVar

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from stremn.checkpoints import (
    Checkpoint,
    optimizer_tensors,
    read_checkpoint,
    restore_optimizer,
    under,
    write_atomically,
    write_checkpoint,
)
from stremn.config import Config, differences
from stremn.errors import MissingExtraError, StremnError
from stremn.losses import LossReport
from stremn.training_log import Means, TrainingLog

__all__ = [
    "FitResult",
    "LossReport",
    "Phase",
    "TrainConfig",
    "fit",
    "learning_rate",
    "parameter_groups",
]

logger = logging.getLogger("stremn.training")

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"
LAST = "last.safetensors"

# Keys that do not touch the weights: a resumed run may have other values without being asked.
FREE_KEYS = (
    "validation",
    "train.checkpoint_every",
    "train.device",
    "train.log_every",
    "train.micro_batch",
    "train.tensorboard",
    "train.threads",
    "train.time_budget_minutes",
    "train.validate_every",
    "train.workers",
)


class TrainConfig(Config):
    """How to optimize. All counts are optimizer steps."""

    steps: PositiveInt
    seed: NonNegativeInt = 0
    optimizer: Literal["adam", "adamw"] = "adamw"
    lr: PositiveFloat
    lr_end: NonNegativeFloat = 0.0
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_steps: NonNegativeInt = 0
    lr_multipliers: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Parameter name prefix -> factor; the longest prefix wins, 0 freezes, "" means the rest."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 0.0
    """Applied to matrices and kernels, never to biases and norms."""
    clip_norm: PositiveFloat | None = None
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay a step of the averaged weights, which are validated and shipped when set."""
    precision: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu"] = "auto"
    micro_batch: PositiveInt | None = None
    """Samples in memory at once in each process; gradients accumulate up to the phase's batch."""
    workers: NonNegativeInt = 0
    """Processes that make samples; 0 makes them in the training process."""
    threads: PositiveInt | None = None
    """CPU threads of a process; None leaves PyTorch's choice. On a shared machine 1 is best."""
    log_every: PositiveInt = 20
    checkpoint_every: PositiveInt = 200
    validate_every: PositiveInt = 500
    monitor: str = "J"
    """The validation score by which the best weights are chosen."""
    monitor_mode: Literal["max", "min"] = "max"
    time_budget_minutes: PositiveFloat | None = None
    """Stop cleanly after this long, counted from the start of this call."""
    tensorboard: bool = False


class Batch(Protocol):
    """A batch can move to a device; its tensors are fields of a dataclass."""

    def to(self, device: torch.device) -> Self:
        """Copy to a device."""
        ...


SampleT = TypeVar("SampleT")
BatchT = TypeVar("BatchT", bound=Batch)

ClipLoss = Callable[[nn.Module, BatchT, float], LossReport]
"""(model, batch, progress in [0, 1]) -> a loss that is a mean over the batch's samples."""


@dataclass(frozen=True)
class Phase(Generic[SampleT, BatchT]):
    """A stretch of training with its own data and loss.

    `dataset[i]` for i in [0, steps x batch) must depend on i alone; each is used exactly once.
    """

    name: str
    steps: int
    batch: int
    dataset: Dataset[SampleT]
    collate: Callable[[list[SampleT]], BatchT]
    clip_loss: ClipLoss[BatchT]


@dataclass(frozen=True)
class FitResult:
    """How a training ended. `model` holds the weights to ship: the average where there is one."""

    model: nn.Module
    step: int
    best: float | None
    stopped: Literal["finished", "interrupted", "time budget"]
    seconds: float


def fit(
    model: nn.Module,
    phases: Sequence[Phase[Any, Any]],
    config: TrainConfig,
    *,
    out: Path,
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    pictures: Callable[[nn.Module, Path], None] | None = None,
    export: Callable[[nn.Module, Path], None] | None = None,
    resume: bool = False,
    recipe: Mapping[str, Any] | None = None,
    accept: Collection[str] = (),
    complete: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> FitResult:
    """Train `model` in place through `phases`, one after the other.

    Writes into `out`: `checkpoint.safetensors` (everything needed to go on), `best.safetensors`
    and `last.safetensors` (weights, written by `export`), `log.csv`, `validation.csv`.
    `validate` and `pictures` get the weights to ship, in evaluation mode, in the main process.

    With `resume`, goes on from the checkpoint in `out` (from the start where there is none). The
    `recipe` must then equal the one of the checkpoint, after `complete` has given it the keys that
    are newer than the checkpoint, except for `FREE_KEYS` and the dotted keys in `accept`.

    Raises `StremnError` on a loss or gradient that is not finite.
    """
    _check_phases(phases, config)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    accelerator = _accelerator(config)
    run = _Run(model, config, accelerator)
    main = accelerator.is_main_process
    _prepare_folder(out, resume)
    if resume and (out / CHECKPOINT).exists():
        saved = read_checkpoint(out / CHECKPOINT)
        before = complete(saved.facts["recipe"] or {})
        # Through the model, so that a newer key has its default here too.
        before["train"] = TrainConfig(**saved.facts["train"]).model_dump(mode="json")
        now = {**(recipe or {}), "train": config.model_dump(mode="json")}
        _refuse_differences(before, now, accept)
        run.restore(saved)
        logger.info("resumed at step %d of %d", run.step, config.steps)
    hooks = _Hooks(out, validate, pictures, export or _export_weights, recipe)
    log = TrainingLog(out, run.step, config.steps, config.tensorboard) if main else None
    with log or nullcontext(), _stop_requests() as stop:
        return _train(run, phases, hooks, log, stop)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Learning rate of step `step`, counted from 0, before the multipliers.

    Rises linearly over the warm-up, then stays or falls along half a cosine to `lr_end`.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    span = max(config.steps - 1 - config.warmup_steps, 1)
    progress = min((step - config.warmup_steps) / span, 1.0)
    return config.lr_end + (config.lr - config.lr_end) * (1 + math.cos(math.pi * progress)) / 2


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Group the trainable parameters by multiplier and weight decay; freeze those with 0.

    Parameters that the model has frozen already stay frozen.
    """
    names = [name for name, _ in model.named_parameters()]
    for prefix in config.lr_multipliers:
        if not any(_matches(name, prefix) for name in names):
            parts = sorted({name.partition(".")[0] for name in names})
            raise StremnError(
                f"train.lr_multipliers: no parameter's name starts with {prefix!r}. "
                f"The model's parts are: {', '.join(parts)}."
            )
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        found = [prefix for prefix in config.lr_multipliers if _matches(name, prefix)]
        multiplier = config.lr_multipliers[max(found, key=len)] if found else 1.0
        if multiplier == 0:
            parameter.requires_grad_(False)
        if not parameter.requires_grad:
            continue
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        group = groups.setdefault(
            (multiplier, decay), {"params": [], "weight_decay": decay, "multiplier": multiplier}
        )
        group["params"].append(parameter)
    if not groups:
        raise StremnError("Nothing to train: every parameter is frozen.")
    return list(groups.values())


def _matches(name: str, prefix: str) -> bool:
    return prefix == "" or name == prefix or name.startswith(f"{prefix}.")


# --- one run ---------------------------------------------------------------------------------


class _LossModule(nn.Module):
    """Makes a clip loss the forward pass, the only place where gradients are synchronized."""

    def __init__(self, model: nn.Module, precision: str) -> None:
        super().__init__()
        self.model = model
        self.precision = precision

    def forward(
        self, clip_loss: ClipLoss[Any], batch: Any, progress: float, device: torch.device
    ) -> tuple[Tensor, dict[str, float]]:
        enabled = self.precision == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            report = clip_loss(self.model, batch, progress)
        return report.loss.float(), report.scalars


class _Run:
    """Model, average, optimizer and step: what a checkpoint holds."""

    def __init__(self, model: nn.Module, config: TrainConfig, accelerator: Any) -> None:
        self.model = model
        self.config = config
        self.accelerator = accelerator
        self.step = 0
        self.best: float | None = None
        groups = parameter_groups(model, config)
        self.loss_module: nn.Module = accelerator.prepare(_LossModule(model, config.precision))
        self.average = copy.deepcopy(model).requires_grad_(False) if config.ema else None
        kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
        self.optimizer = kind(groups, lr=config.lr, betas=config.betas)
        self.parameters = [p for group in groups for p in group["params"]]

    @property
    def shipped(self) -> nn.Module:
        """The weights to validate and to ship."""
        return self.average if self.average is not None else self.model

    def checkpoint(self, recipe: Mapping[str, Any] | None) -> Checkpoint:
        tensors = _prefixed("model", self.model.state_dict())
        if self.average is not None:
            tensors |= _prefixed("average", self.average.state_dict())
        tensors |= optimizer_tensors(self.optimizer, self.model, "optimizer")
        facts = {
            "step": self.step,
            "best": self.best,
            "train": self.config.model_dump(mode="json"),
            "recipe": recipe,
        }
        return Checkpoint(tensors, facts)

    def restore(self, saved: Checkpoint) -> None:
        self.model.load_state_dict(under(saved.tensors, "model"))
        if self.average is not None:
            average = under(saved.tensors, "average") or under(saved.tensors, "model")
            self.average.load_state_dict(average)
        restore_optimizer(self.optimizer, self.model, under(saved.tensors, "optimizer"))
        self.step, self.best = saved.facts["step"], saved.facts["best"]

    def update(self, phase: Phase[Any, Any], micro_batches: Sequence[Any]) -> dict[str, float]:
        """Take one optimizer step on this process's share of a batch; return its scalars."""
        _seed_step(self.config.seed, self.step, self.accelerator.process_index)
        self.loss_module.train()
        means = Means()
        for index, batch in enumerate(micro_batches):
            with self._sync(last=index == len(micro_batches) - 1):
                loss, scalars = self.loss_module(
                    phase.clip_loss, batch, self.progress, self.accelerator.device
                )
                (loss / len(micro_batches)).backward()
            means.add({"loss": float(loss.detach())} | scalars)
        scalars = means.take()
        # An infinite limit clips nothing, but gives the norm.
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm or math.inf)
        scalars["gradient_norm"] = float(norm)
        if not math.isfinite(scalars["gradient_norm"]) or not math.isfinite(scalars["loss"]):
            raise _NotFiniteError(scalars)
        self._apply()
        return scalars

    @property
    def progress(self) -> float:
        """Share of the training that is done, in [0, 1]."""
        return self.step / self.config.steps

    def _sync(self, last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last else self.accelerator.no_sync(self.loss_module)

    def _apply(self) -> None:
        rate = learning_rate(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["multiplier"]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.average is not None and self.config.ema is not None:
            # Early averages would be dominated by the initial weights: remember less at first.
            decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
            _update_average(self.average, self.model, decay)


@dataclass(frozen=True)
class _Hooks:
    """Where a run writes and whom it asks."""

    out: Path
    validate: Callable[[nn.Module], Mapping[str, float]] | None
    pictures: Callable[[nn.Module, Path], None] | None
    export: Callable[[nn.Module, Path], None]
    recipe: Mapping[str, Any] | None


class _NotFiniteError(Exception):
    """A loss or gradient norm that is not finite."""

    def __init__(self, scalars: Mapping[str, float]) -> None:
        super().__init__()
        self.scalars = scalars


def _train(
    run: _Run,
    phases: Sequence[Phase[Any, Any]],
    hooks: _Hooks,
    log: TrainingLog | None,
    stop: threading.Event,
) -> FitResult:
    config, started = run.config, time.monotonic()
    stopped: Literal["finished", "interrupted", "time budget"] = "finished"
    means, clock = Means(), _Clock()
    validated = -1
    for phase, micro_batches in _batches(run, phases, clock):
        try:
            scalars = run.update(phase, micro_batches)
        except _NotFiniteError as error:
            raise _stop_not_finite(run, hooks.out, micro_batches, error) from None
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
            validated = run.step
        elif run.step % config.checkpoint_every == 0:
            _save(run, hooks)
        clock.pause_over()
        request = _agreed(run, _stop_request(config, started, stop))
        if request and run.step < config.steps:
            stopped = "interrupted" if request == 1 else "time budget"
            logger.info("stopped at step %d: %s; go on with --resume", run.step, stopped)
            break
    if validated != run.step and stopped != "interrupted":
        _validate(run, hooks, log)
    _save(run, hooks)
    run.accelerator.wait_for_everyone()
    return FitResult(run.shipped, run.step, run.best, stopped, time.monotonic() - started)


def _validate(run: _Run, hooks: _Hooks, log: TrainingLog | None) -> None:
    """Score the weights to ship, keep them if they are the best, and write a checkpoint."""
    if run.accelerator.is_main_process:
        _seed_step(run.config.seed, run.step, 0)
        model = run.shipped.eval()
        with torch.no_grad():
            scores = hooks.validate(model) if hooks.validate else {}
            if hooks.pictures:
                hooks.pictures(model, hooks.out / "pictures" / f"step_{run.step:07d}")
        if log is not None and scores:
            log.validation(run.step, scores)
        if scores and _is_better(run.config, _monitored(run.config, scores), run.best):
            run.best = scores[run.config.monitor]
            write_atomically(hooks.out / BEST, lambda path: hooks.export(model, path))
    _save(run, hooks)


def _save(run: _Run, hooks: _Hooks) -> None:
    if run.accelerator.is_main_process:
        write_atomically(hooks.out / LAST, lambda path: hooks.export(run.shipped, path))
        write_checkpoint(hooks.out / CHECKPOINT, run.checkpoint(hooks.recipe))
    run.accelerator.wait_for_everyone()


def _monitored(config: TrainConfig, scores: Mapping[str, float]) -> float:
    if config.monitor not in scores:
        raise StremnError(
            f"train.monitor is {config.monitor!r}, but validation reports {', '.join(scores)}."
        )
    return scores[config.monitor]


def _is_better(config: TrainConfig, score: float, best: float | None) -> bool:
    if best is None:
        return True
    return score > best if config.monitor_mode == "max" else score < best


def _log_row(run: _Run, means: Means, clock: _Clock) -> dict[str, float]:
    row = means.take()
    row["loss"] = _mean_over_processes(run, row["loss"])
    return row | {"lr": learning_rate(run.config, run.step - 1)} | clock.take()


def _stop_not_finite(
    run: _Run, out: Path, micro_batches: Sequence[Any], error: _NotFiniteError
) -> StremnError:
    """Save the batch for inspection and say what happened. The checkpoint is left as it is."""
    rank = run.accelerator.process_index
    path = out / f"not_finite_step_{run.step:07d}_process_{rank}.safetensors"
    tensors = {
        f"{index}.{name}": tensor.detach().cpu().contiguous()
        for index, batch in enumerate(micro_batches)
        for name, tensor in _named_tensors(batch).items()
    }
    save_file(tensors, path)
    kept = out / CHECKPOINT
    last = f"the last good checkpoint is {kept}" if kept.exists() else "no checkpoint was due yet"
    return StremnError(
        f"Training stopped at step {run.step}: loss {error.scalars['loss']:g}, gradient norm "
        f"{error.scalars['gradient_norm']:g}. The batch is saved in {path}; {last}. "
        "A lower train.lr, a train.clip_norm or train.precision=float32 usually helps."
    )


def _named_tensors(batch: Any) -> dict[str, Tensor]:
    fields = [(field.name, getattr(batch, field.name)) for field in dataclasses.fields(batch)]
    return {name: value for name, value in fields if isinstance(value, Tensor)}


# --- data ------------------------------------------------------------------------------------


def _batches(
    run: _Run, phases: Sequence[Phase[Any, Any]], clock: _Clock
) -> Iterator[tuple[Phase[Any, Any], list[Any]]]:
    """Yield each remaining step's phase and this process's micro-batches, on its device."""
    first = 0
    for phase in phases:
        start = max(run.step - first, 0)
        first += phase.steps
        if start >= phase.steps:
            continue
        logger.info("phase %s: %d steps of %d samples", phase.name, phase.steps, phase.batch)
        shares = _share_of_process(run, phase, start)
        flat = [indices for step in shares for indices in step]
        loader = iter(_loader(phase, flat, run.config))
        for step in shares:
            with clock.waiting():
                batches = [next(loader).to(run.accelerator.device) for _ in step]
            yield phase, batches


def _share_of_process(run: _Run, phase: Phase[Any, Any], start: int) -> list[list[list[int]]]:
    """Sample indices of this process: a list of micro-batches for each step from `start`.

    Sample j of a step belongs to process j mod world: no sample is used twice.
    """
    world, rank = run.accelerator.num_processes, run.accelerator.process_index
    own = phase.batch // world
    micro = min(run.config.micro_batch or own, own)
    if phase.batch % world or own % micro:
        raise StremnError(
            f"Phase {phase.name!r}: a batch of {phase.batch} cannot be split evenly over {world} "
            f"process(es) in micro-batches of {micro}. Change the batch or train.micro_batch."
        )
    steps = []
    for step in range(start, phase.steps):
        indices = [step * phase.batch + j for j in range(rank, phase.batch, world)]
        steps.append([indices[i : i + micro] for i in range(0, own, micro)])
    return steps


def _loader(
    phase: Phase[Any, Any], batches: list[list[int]], config: TrainConfig
) -> DataLoader[Any]:
    return DataLoader(
        phase.dataset,
        batch_sampler=batches,
        collate_fn=phase.collate,
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        worker_init_fn=_leave_signals_to_parent,
        # Its own generator: drawing the workers' seed must not move the global one.
        generator=torch.Generator().manual_seed(config.seed),
    )


def _leave_signals_to_parent(_: int) -> None:
    """Let the main process finish its step and write a checkpoint on Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


# --- small parts -----------------------------------------------------------------------------


class _Clock:
    """Seconds a step, and the share of them spent waiting for data."""

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
        """Leave out what happened since the last step (validation, checkpoints)."""
        self._mark = time.monotonic()

    def take(self) -> dict[str, float]:
        """Return the means since the last call."""
        total, steps = max(self._total, 1e-9), max(self._steps, 1)
        means = {"seconds_per_step": total / steps, "data_wait": self._waited / total}
        self._total = self._waited = 0.0
        self._steps = 0
        return means


def _seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch, numpy's legacy generator and `random` for one step of one process."""
    words = np.random.SeedSequence([seed, step, rank]).generate_state(2, np.uint32)
    torch.manual_seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002
    random.seed(int(words[0]))


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for mean, parameter in zip(average.parameters(), model.parameters(), strict=True):
        if parameter.requires_grad:
            mean.lerp_(parameter, 1 - decay)
    for kept, buffer in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(buffer)


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Turn SIGTERM and the first Ctrl-C into an event; a second Ctrl-C stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, _: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        logger.info("asked to stop: finishing this step")
        stop.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_request(config: TrainConfig, started: float, stop: threading.Event) -> int:
    """0 to go on, 1 after a signal, 2 when the time is up."""
    if stop.is_set():
        return 1
    budget = config.time_budget_minutes
    return 2 if budget is not None and time.monotonic() - started > budget * 60 else 0


def _agreed(run: _Run, request: int) -> int:
    """Let every process take the same decision: the largest request of all."""
    if run.accelerator.num_processes == 1:
        return request
    mine = torch.tensor([request], device=run.accelerator.device)
    return int(run.accelerator.gather(mine).max())


def _mean_over_processes(run: _Run, value: float) -> float:
    if run.accelerator.num_processes == 1:
        return value
    mine = torch.tensor([value], dtype=torch.float32, device=run.accelerator.device)
    return float(run.accelerator.gather(mine).mean())


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _refuse_differences(
    before: Mapping[str, Any], now: Mapping[str, Any], accept: Collection[str]
) -> None:
    allowed = (*FREE_KEYS, *accept)
    found = [d for d in differences(before, now) if not any(_matches(d.key, k) for k in allowed)]
    if found:
        raise StremnError(
            "Cannot resume with another recipe. Changed: "
            + "; ".join(str(difference) for difference in found)
            + ". Restore the recipe, train into another folder, or name each change with --set."
        )


def _prepare_folder(out: Path, resume: bool) -> None:
    if (out / CHECKPOINT).exists() and not resume:
        raise StremnError(
            f"{out} already holds a training. Go on with --resume, or choose another folder."
        )
    out.mkdir(parents=True, exist_ok=True)


def _check_phases(phases: Sequence[Phase[Any, Any]], config: TrainConfig) -> None:
    total = sum(phase.steps for phase in phases)
    if total != config.steps:
        raise StremnError(
            f"The phases have {total} steps together, but train.steps is {config.steps}."
        )


def _export_weights(model: nn.Module, path: Path) -> None:
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    save_file(state, path)


def _accelerator(config: TrainConfig) -> Any:
    try:
        from accelerate import (
            Accelerator,
            DistributedDataParallelKwargs,
            InitProcessGroupKwargs,
        )
    except ImportError as error:
        raise MissingExtraError("accelerate", "train") from error
    # A rule that evicts nothing, or a phase that reads no memory, leaves parameters unused.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    # The others wait while the main process validates.
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=4))
    # Precision is ours (`_LossModule`), so that one process can run several trainings.
    return Accelerator(
        mixed_precision="no", cpu=config.device == "cpu", kwargs_handlers=[unused, patience]
    )
