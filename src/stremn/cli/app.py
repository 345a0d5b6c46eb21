"""The application: its verbs, and how errors reach the user."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import NoReturn

import typer

from stremn.cli import (
    analyze,
    convert,
    evaluate,
    measure,
    predict,
    prediction_scores,
    segment,
    tables,
    train,
)
from stremn.cli.terminal import console
from stremn.errors import StremnError

app = typer.Typer(
    name="stremn",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help=(
        "Follow objects through a video of any length, or predict its next frames, with a "
        "memory that never grows.\n\nStart with **stremn demo**, then "
        "**stremn segment clip.mp4 --mask first.png**."
    ),
)
for verbs in (
    segment,
    predict,
    evaluate,
    prediction_scores,
    tables,
    analyze,
    measure,
    train,
    convert,
):
    verbs.register(app)


def main() -> None:
    """Run the command line; a user's mistake ends in one sentence and exit code 2.

    SIGTERM ends a verb as Ctrl-C does, so that what it did is made resumable.
    """
    logging.basicConfig(level=os.environ.get("STREMN_LOG", "WARNING"), format="%(message)s")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except StremnError as error:
        _fail(str(error))
    except (MemoryError, RuntimeError) as error:
        from stremn.hardware import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        _fail(
            "The machine's memory is used up. Fewer memory slots or objects, a smaller size, or "
            "in training a smaller train.micro_batch, need less."
        )
    except KeyboardInterrupt:
        console.print("Interrupted. What was finished is on disk.")
        sys.exit(130)


def _fail(message: str) -> NoReturn:
    console.print(f"[bold red]Error:[/bold red] {_plain(message)}", soft_wrap=True)
    sys.exit(2)


def _plain(text: str) -> str:
    """Keep square brackets of a message from being read as markup."""
    return text.replace("[", r"\[")
