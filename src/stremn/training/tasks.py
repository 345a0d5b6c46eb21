"""All tasks, and the task of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from stremn.core.config import read_toml
from stremn.training.task import Task


def task_of(path: Path) -> Task[Any]:
    """Return the task that the recipe at `path` names; the default is segmentation."""
    data = read_toml(path)
    name = "prompting" if "prompts" in data else data.get("task", "segmentation")
    known = name if name in ("prediction", "prompting") else "segmentation"
    return import_module(f"stremn.training.{known}.task").TASK


def train(
    path: Path, overrides: Sequence[str], out: Path | None, *, resume: bool, dry_run: bool
) -> str:
    """Train as the recipe at `path` says, or with `dry_run` estimate the cost; return text."""
    task = task_of(path)
    if dry_run:
        return task.cost(path, overrides)
    folder = out if out is not None else Path("runs") / path.stem
    return f"{task.run(path, overrides, folder, resume=resume)}; weights and logs are in {folder}"
