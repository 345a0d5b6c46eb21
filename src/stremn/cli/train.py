"""`stremn train`, `export`: for people with data of their own, or another runtime."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from stremn.cli.terminal import output


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command()(train)


def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file, such as recipes/small-video.toml.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder; default runs/<recipe>.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value, as often as needed.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Say what a full run costs, and stop.")] = False,
) -> None:
    """Train a model as a recipe says.

    Data paths in a recipe are absolute or below the folder in the variable STREMN_DATA. Stopped
    at any moment, a training goes on with --resume to the very same weights.

    Example: stremn train recipes/small-video.toml --set train.steps=2000 --out runs/mine
    """
    from stremn.prediction import recipes as prediction_recipes
    from stremn.training import recipes

    logging.getLogger("stremn").setLevel(logging.INFO)
    task = prediction_recipes if prediction_recipes.is_prediction_recipe(recipe) else recipes
    text = task.train(recipe, changes or [], out, resume=resume, dry_run=dry_run)
    output.print(text, markup=False, highlight=False, soft_wrap=True)
