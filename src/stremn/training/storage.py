"""Where a training keeps its state and its weights: in a folder, or nowhere."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from stremn.core.atomic_files import output_folder
from stremn.core.checkpoints import (
    Checkpoint,
    read_checkpoint,
    write_atomically,
    write_checkpoint,
    write_tensors,
)
from stremn.errors import StremnError
from stremn.training.config import TrainConfig
from stremn.training.optimization import Run

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"
LAST = "last.safetensors"

Export = Callable[[nn.Module, Path], None]
"""Writes a model's weights to a file, in one move."""


class Storage(Protocol):
    """Keeps what a training makes.

    Every process reads the checkpoint and saves the batch that it cannot go on with; all else is
    called in the main process alone.
    """

    @property
    def folder(self) -> Path | None:
        """Folder of the logs; None for no logs in files."""
        ...

    def locked(self) -> AbstractContextManager[object]:
        """Return a context in which no other run writes here."""
        ...

    def checkpoint(self, *, resume: bool) -> Checkpoint | None:
        """Return the state to go on from, or None where the run starts.

        Raises:
            StremnError: there is one, but it is not to be resumed, or it is damaged.
        """
        ...

    def save_recipe(self, config: TrainConfig) -> None:
        """Keep the recipe with the settings that are used."""
        ...

    def save(self, run: Run) -> None:
        """Keep the state of the run, and its weights to ship as the last ones."""
        ...

    def save_best(self, model: nn.Module) -> None:
        """Keep a model's weights as the best ones."""
        ...

    def save_pictures(self, draw: Callable[[Path], None], step: int) -> None:
        """Let `draw` write the pictures of a step into a folder, if they are kept."""
        ...

    def save_batch(self, run: Run, micro_batches: Sequence[Any]) -> str:
        """Keep the batch that the run cannot go on with; return a sentence that says where."""
        ...


class NoStorage:
    """Keeps nothing: the trained model in memory is all that is wanted."""

    folder = None

    def locked(self) -> AbstractContextManager[object]:
        """Return a context that does nothing."""
        return nullcontext()

    def checkpoint(self, *, resume: bool) -> None:
        """Return None: every run starts."""

    def save_recipe(self, config: TrainConfig) -> None:
        """Do nothing."""

    def save(self, run: Run) -> None:
        """Do nothing."""

    def save_best(self, model: nn.Module) -> None:
        """Do nothing."""

    def save_pictures(self, draw: Callable[[Path], None], step: int) -> None:
        """Do nothing."""

    def save_batch(self, run: Run, micro_batches: Sequence[Any]) -> str:
        """Say that nothing was saved."""
        return "Nothing was saved."


class RunFolder:
    """Keeps everything in a folder.

    folder: made where it is missing. export: writes weights. recipe: kept with the state; None for
    a training without one.
    """

    def __init__(
        self, folder: Path, export: Export | None, recipe: Mapping[str, Any] | None
    ) -> None:
        self.folder = folder
        self._export = export or _export_weights
        self._recipe = recipe

    def locked(self) -> AbstractContextManager[object]:
        """Make the folder and lock it, as `output_folder` does."""
        return output_folder(self.folder)

    def checkpoint(self, *, resume: bool) -> Checkpoint | None:
        """Read the checkpoint in the folder, if there is one."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return None
        if not resume:
            raise StremnError(
                f"{self.folder} already holds a training. Continue with --resume, or choose "
                "another folder."
            )
        return read_checkpoint(path)

    def save_recipe(self, config: TrainConfig) -> None:
        """Write `recipe.json`, if there is a recipe."""
        if self._recipe is None:
            return
        whole = {"train": config.model_dump(mode="json"), **self._recipe}
        text = json.dumps(whole, indent=2) + "\n"
        path = self.folder / "recipe.json"
        write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))

    def save(self, run: Run) -> None:
        """Write `last.safetensors` and the checkpoint."""
        self._export(run.shipped, self.folder / LAST)
        write_checkpoint(self.folder / CHECKPOINT, run.checkpoint(self._recipe))

    def save_best(self, model: nn.Module) -> None:
        """Write `best.safetensors`."""
        self._export(model, self.folder / BEST)

    def save_pictures(self, draw: Callable[[Path], None], step: int) -> None:
        """Give `draw` a folder for the step."""
        draw(self.folder / "pictures" / f"step_{step:07d}")

    def save_batch(self, run: Run, micro_batches: Sequence[Any]) -> str:
        """Write the batch to a file of this step and process."""
        rank = run.accelerator.process_index
        path = self.folder / f"not_finite_step_{run.step:07d}_process_{rank}.safetensors"
        tensors = {
            f"{index}.{name}": tensor.detach().cpu().contiguous()
            for index, batch in enumerate(micro_batches)
            for name, tensor in _named_tensors(batch).items()
        }
        write_tensors(path, tensors, {})
        kept = self.folder / CHECKPOINT
        last = (
            f"the last good checkpoint is {kept}" if kept.exists() else "no checkpoint was due yet"
        )
        return f"The batch is saved in {path}; {last}."


def _named_tensors(batch: Any) -> dict[str, Tensor]:
    fields = [(field.name, getattr(batch, field.name)) for field in dataclasses.fields(batch)]
    return {name: value for name, value in fields if isinstance(value, Tensor)}


def _export_weights(model: nn.Module, path: Path) -> None:
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    write_tensors(path, state, {})
