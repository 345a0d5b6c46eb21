"""State of a training run, and its optimizer steps."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stremn.core.checkpoints import Checkpoint, optimizer_tensors, restore_optimizer, under
from stremn.core.weights import misfit
from stremn.errors import StremnError
from stremn.training.config import TrainConfig, name_starts_with
from stremn.training.loading import BatchLoss, Phase
from stremn.training.log import Means


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the learning rate of step `step`, counted from 0, before the multipliers.

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
        if not any(name_starts_with(name, prefix) for name in names):
            parts = sorted({name.partition(".")[0] for name in names})
            raise StremnError(
                f"train.lr_multipliers: no parameter's name starts with {prefix!r}. "
                f"The model's parts are: {', '.join(parts)}."
            )
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        found = [prefix for prefix in config.lr_multipliers if name_starts_with(name, prefix)]
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


class Run:
    """Model, average, optimizer and step number: the content of a checkpoint."""

    def __init__(self, model: nn.Module, config: TrainConfig, accelerator: Any) -> None:
        self.model = model
        self.config = config
        self.accelerator = accelerator
        self.step = 0
        self.best: float | None = None
        self.scored = 0
        """Step whose weights were validated last."""
        groups = parameter_groups(model, config)
        self.loss_module: nn.Module = accelerator.prepare(_LossModule(model, config.precision))
        self.average = copy.deepcopy(model).requires_grad_(False) if config.ema else None
        kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
        self.optimizer = kind(groups, lr=config.lr, betas=config.betas)
        self.parameters = [p for group in groups for p in group["params"]]

    @property
    def shipped(self) -> nn.Module:
        """Weights to validate and export."""
        return self.average if self.average is not None else self.model

    def checkpoint(self, recipe: Mapping[str, Any] | None) -> Checkpoint:
        """Return the state that a run needs to resume here."""
        tensors = _prefixed("model", self.model.state_dict())
        if self.average is not None:
            tensors |= _prefixed("average", self.average.state_dict())
        tensors |= optimizer_tensors(self.optimizer, self.model, "optimizer")
        facts = {
            "step": self.step,
            "best": self.best,
            "scored": self.scored,
            "train": self.config.model_dump(mode="json"),
            "recipe": recipe,
        }
        return Checkpoint(tensors, facts)

    def restore(self, saved: Checkpoint) -> None:
        """Restore the state that `saved` holds.

        Raises StremnError if its weights are another network's: a preset may have changed since.
        """
        try:
            self.model.load_state_dict(under(saved.tensors, "model"))
        except RuntimeError as error:
            reason = misfit(error).rstrip(".")
            raise StremnError(
                f"The checkpoint is of another network than the recipe describes now ({reason}). "
                "If a preset has changed since, start another training from its weights: set "
                "model.start to its last.safetensors, and give another --out."
            ) from error
        if self.average is not None:
            average = under(saved.tensors, "average") or under(saved.tensors, "model")
            self.average.load_state_dict(average)
        restore_optimizer(self.optimizer, self.model, under(saved.tensors, "optimizer"))
        self.step, self.best = saved.facts["step"], saved.facts["best"]
        self.scored = saved.facts.get("scored", self.step)

    def rehearse(self, phase: Phase[Any, Any], batch: Any) -> None:
        """Run a step with a micro-batch without its update, so that what does not fit fails."""
        seed_step(self.config.seed, self.step, self.accelerator.process_index)
        self.loss_module.train()
        loss, _ = self.loss_module(phase.clip_loss, batch, 0.0, self.accelerator.device)
        loss.backward()
        self.optimizer.zero_grad(set_to_none=True)

    def update(self, phase: Phase[Any, Any], micro_batches: Sequence[Any]) -> dict[str, float]:
        """Take one optimizer step on this process's share of a batch; return its scalars."""
        seed_step(self.config.seed, self.step, self.accelerator.process_index)
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
            raise NotFiniteError(scalars)
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


class _LossModule(nn.Module):
    """Makes a clip loss the forward pass, the only place where gradients are synchronized."""

    def __init__(self, model: nn.Module, precision: str) -> None:
        super().__init__()
        self.model = model
        self.precision = precision

    def forward(
        self, clip_loss: BatchLoss[Any], batch: Any, progress: float, device: torch.device
    ) -> tuple[Tensor, dict[str, float]]:
        enabled = self.precision == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            report = clip_loss(self.model, batch, progress)
        return report.loss.float(), report.scalars


class NotFiniteError(Exception):
    """A loss or gradient norm that is not finite."""

    def __init__(self, scalars: Mapping[str, float]) -> None:
        super().__init__()
        self.scalars = scalars


def seed_step(seed: int, step: int, rank: int) -> None:
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


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
