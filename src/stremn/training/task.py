"""Interface of a task for `stremn train`: read a recipe, run a training, estimate its cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from stremn.core.config import build, override, read_toml
from stremn.moved import with_current_requests
from stremn.training.config import TrainingRecipe, overridden
from stremn.training.fit import FitResult, Phase, fit
from stremn.training.storage import Export

RecipeT = TypeVar("RecipeT", bound=TrainingRecipe)


@dataclass(frozen=True)
class Plan:
    """A recipe turned into arguments of `fit`, and a final action."""

    model: nn.Module
    phases: Sequence[Phase[Any, Any]]
    export: Export
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None
    pictures: Callable[[nn.Module, Path], None] | None = None
    finish: Callable[[nn.Module], None] | None = None


class Task(ABC, Generic[RecipeT]):
    """A kind of training: its recipe, its plan and its cost."""

    recipe: type[RecipeT]

    @abstractmethod
    def plan(self, recipe: RecipeT, path: Path, out: Path, *, resume: bool) -> Plan:
        """Open data and build the model of the recipe at `path`, to be trained into `out`."""

    @abstractmethod
    def estimate(self, recipe: RecipeT, path: Path) -> object:
        """Return the cost of a run of the recipe at `path`; `str` of it is text for the user."""

    def read(self, path: Path, overrides: Sequence[str] = ()) -> RecipeT:
        """Read a recipe and apply `overrides` ("train.lr=1e-4").

        Raises:
            StremnError: it cannot be read, or says what the task does not know.
        """
        requests = with_current_requests(overrides)
        return build(self.recipe, override(read_toml(path), requests), str(path))

    def run(
        self, path: Path, overrides: Sequence[str], out: Path, *, resume: bool = False
    ) -> FitResult:
        """Train as the recipe at `path` says; write everything into `out`.

        Keys given in `overrides` may differ from those of the run that is resumed.

        Raises:
            StremnError: a wrong recipe, missing data or weights, or another run in `out`.
        """
        overrides = with_current_requests(overrides)
        recipe = self.read(path, overrides)
        torch.manual_seed(recipe.train.seed)
        plan = self.plan(recipe, path, out, resume=resume)
        result = fit(
            plan.model,
            plan.phases,
            recipe.train,
            out=out,
            validate=plan.validate,
            pictures=plan.pictures,
            export=plan.export,
            resume=resume,
            recipe=recipe.facts(),
            complete=recipe.completed,
            accept=overridden(overrides),
        )
        if plan.finish is not None and result.stopped == "finished":
            plan.finish(result.model)
        return result

    def cost(self, path: Path, overrides: Sequence[str] = ()) -> str:
        """Check a recipe, time some steps, and return the cost of a full run as text."""
        return str(self.estimate(self.read(path, overrides), path))
