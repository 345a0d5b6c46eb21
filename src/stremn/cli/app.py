"""The command line application: its commands and its error messages."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

from stremn.cli import (
    analyze,
    batch,
    check_mask,
    convert,
    demo,
    evaluate,
    measure,
    predict,
    prediction_scores,
    prompt_scores,
    reformat,
    segment,
    tables,
    train,
    web,
)
from stremn.cli.terminal import console, show
from stremn.core.signals import stopping_signals
from stremn.errors import StremnError

app = typer.Typer(
    name="stremn",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help=(
        "Follow objects through a video of any length, or predict its next frames, with a "
        "memory of constant size.\n\nStart with **stremn demo**, then "
        "**stremn segment clip.mp4 --mask first.png**."
    ),
)


def _tell_version(asked: bool) -> bool:
    if asked:
        from stremn import __version__

        show(f"stremn {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_tell_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


for commands in (
    segment,
    batch,
    reformat,
    demo,
    check_mask,
    web,
    predict,
    evaluate,
    prediction_scores,
    prompt_scores,
    tables,
    analyze,
    measure,
    train,
    convert,
):
    commands.register(app)


def main() -> None:
    """Run the command line; a StremnError is printed in one sentence, with exit code 2.

    SIGTERM and SIGHUP end a command as Ctrl-C does, so that it can be resumed.
    """
    logging.basicConfig(level=os.environ.get("STREMN_LOG", "WARNING"), format="%(message)s")
    for number in stopping_signals()[1:]:  # the first is SIGINT, which does so anyway
        signal.signal(number, signal.default_int_handler)
    try:
        app()
    except StremnError as error:
        _fail(str(error))
    except MemoryError:  # by itself: there may be too little left to import anything
        _fail(_NO_MEMORY)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            _fail(_NO_MEMORY)
        if error.errno not in _OUTPUT_ENDED:
            if error.filename is None:
                raise
            _fail(f"{error.filename} cannot be used: {error.strerror}.")  # a path of the user's
        _end_output()
    except RuntimeError as error:
        from stremn.core.hardware import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        _fail(_NO_MEMORY)
    except KeyboardInterrupt:
        # What a command has written before, it says itself.
        console.print("Interrupted.")
        sys.exit(130)


_NO_MEMORY = (
    "Out of memory. Use fewer memory slots or objects, a lower working resolution, or in "
    "training a smaller train.micro_batch."
)

_OUTPUT_ENDED = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO})
"""Errors of printing to a closed pipe or a full disk; file errors have messages of their own."""


def _fail(message: str) -> NoReturn:
    try:
        console.print(f"[bold red]Error:[/bold red] {_plain(message)}", soft_wrap=True)
    except OSError:
        _end_output()
    except MemoryError:  # too little is left for colors
        os.write(2, f"Error: {message}\n".encode())
    sys.exit(2)


def _end_output() -> NoReturn:
    """End the process with exit code 2 when nothing can be printed any more."""
    with suppress(OSError, ValueError):
        console.print("The output could not be written: the pipe is closed or the disk is full.")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):  # Python flushes both at its end, and would fail again
        with suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
    sys.exit(2)


def _plain(text: str) -> str:
    """Escape square brackets, which rich would read as markup."""
    return text.replace("[", r"\[")
