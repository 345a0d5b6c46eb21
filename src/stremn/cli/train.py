"""`stremn train` and `stremn average`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from stremn.cli.panels import TRAIN
from stremn.cli.terminal import show


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel=TRAIN)(train)
    app.command(rich_help_panel=TRAIN)(average)


def train(
    recipe: Annotated[
        str,
        typer.Argument(help="TOML file, or the name of a shipped recipe such as `small-video`."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for weights and logs; default `runs/<recipe>`."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="`section.key=value`: change a value of the recipe. Repeatable."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last checkpoint.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check the data, time some steps, print the cost of a full run, and stop.",
        ),
    ] = False,
) -> None:
    """Train a model from a recipe.

    Data paths in a recipe are absolute, or relative to the folder that the environment variable
    STREMN_DATA names. A run that was stopped at any moment continues with --resume and ends with
    the same weights.

    Example: stremn train small-video --set train.steps=2000 --out runs/mine
    """
    from stremn.training.processes import leave_processes, require_accelerate
    from stremn.training.shipped_recipes import find_recipe
    from stremn.training.tasks import train as run

    require_accelerate()
    logging.getLogger("stremn").setLevel(logging.INFO)
    show(run(find_recipe(recipe), changes or [], out, resume=resume, dry_run=dry_run))
    leave_processes()


def average(
    models: Annotated[list[str], typer.Argument(help="Weights files, folders or presets.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Weights file to write (.safetensors).")],
) -> None:
    """Average the weights of related segmentation models (checkpoint averaging).

    The models must come from one another, such as the start and the end of a training stage.

    Example: stremn average small runs/mine/last.safetensors -o mine.safetensors
    """
    from stremn.training.averaging import average_models

    average_models(models).save(out)
    show(f"{out}: mean of {len(models)} models")
