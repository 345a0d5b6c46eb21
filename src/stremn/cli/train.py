"""`stremn train` and `stremn average`: for people with data of their own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from stremn.cli.panels import TRAIN
from stremn.cli.terminal import show


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command(rich_help_panel=TRAIN)(train)
    app.command(rich_help_panel=TRAIN)(average)


def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file, such as recipes/small-video.toml.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for weights and logs; default `runs/<recipe>`."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="`section.key=value`: change a value of the recipe; repeatable."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Measure some steps, say what a full run costs, and stop."),
    ] = False,
) -> None:
    """Train a model as a recipe says.

    Data paths in a recipe are absolute or below the folder in the variable STREMN_DATA. Stopped
    at any moment, a training goes on with --resume to the very same weights.

    Example: stremn train recipes/small-video.toml --set train.steps=2000 --out runs/mine
    """
    from stremn.training.prediction import recipes as prediction_recipes
    from stremn.training.processes import leave_processes
    from stremn.training.prompting import recipes as prompt_recipes
    from stremn.training.segmentation import recipes

    logging.getLogger("stremn").setLevel(logging.INFO)
    run = recipes.train
    if prompt_recipes.is_prompt_recipe(recipe):
        run = prompt_recipes.train
    elif prediction_recipes.is_prediction_recipe(recipe):
        run = prediction_recipes.train
    text = run(recipe, changes or [], out, resume=resume, dry_run=dry_run)
    show(text)
    leave_processes()


def average(
    models: Annotated[list[str], typer.Argument(help="Weights files, folders or presets.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Weights file to write (.safetensors).")],
) -> None:
    """Average the weights of segmentation models that come from one another.

    The mean of a training stage's start and end is often steadier than either.

    Example: stremn average small runs/mine/last.safetensors -o mine.safetensors
    """
    from stremn.training.averaging import average_models

    average_models(models).save(out)
    show(f"The mean of {len(models)} models is in {out}.")
