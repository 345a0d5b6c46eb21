"""`stremn convert`: convert published weights of STM and STCN."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stremn.cli.panels import TRAIN
from stremn.cli.terminal import show
from stremn.errors import StremnError


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(rich_help_panel=TRAIN)(convert)


def convert(
    checkpoint: Annotated[
        Path, typer.Argument(help="The authors' checkpoint: STM_weights.pth or stcn.pth.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Weights file to write (.safetensors).")],
) -> None:
    """Convert the official checkpoint of STM or STCN to weights for --model.

    The file is read as tensors; code in it is not run.

    Example: stremn convert stcn.pth -o stcn.safetensors
    """
    from stremn.networks.conversion import convert

    if out.suffix != ".safetensors":
        raise StremnError(f"The output file must end in .safetensors, got {out.name}.")
    converted = convert(checkpoint)
    try:
        converted.save(out)
    except OSError as error:
        raise StremnError(f"Cannot write the weights to {out}: {error}.") from error
    show(f"{out}: {converted.config.family.upper()}; use it as --model {out}")
