"""The application: its verbs, and how errors reach the user."""

from __future__ import annotations

import logging
import os
import sys

import typer

from stremn.cli import analyze, measure, predict, prediction_scores, segment, study, train
from stremn.cli.terminal import console
from stremn.errors import StremnError

app = typer.Typer(
    name="stremn",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=(
        "Follow objects through a video of any length, or predict its next frames, with a "
        "memory that never grows.\n\nStart with [bold]stremn demo[/bold], then "
        "[bold]stremn segment clip.mp4 --mask first.png[/bold]."
    ),
)
for verbs in (segment, predict, study, prediction_scores, analyze, measure, train):
    verbs.register(app)


def main() -> None:
    """Run the command line; a user's mistake ends in one sentence and exit code 2."""
    logging.basicConfig(level=os.environ.get("STREMN_LOG", "WARNING"), format="%(message)s")
    try:
        app()
    except StremnError as error:
        console.print(f"[bold red]Error:[/bold red] {_plain(str(error))}", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("Interrupted. What was finished is on disk.")
        sys.exit(130)


def _plain(text: str) -> str:
    """Keep square brackets of a message from being read as markup."""
    return text.replace("[", r"\[")
