"""`stremn check-mask`: check a mask file and repair it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stremn.cli.panels import FOLLOW
from stremn.cli.terminal import show


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("check-mask", rich_help_panel=FOLLOW)(check_mask)


def check_mask(
    mask: Annotated[Path, typer.Argument(help="Mask image.")],
    frame: Annotated[
        str | None,
        typer.Option(help="Video, folder or image that the mask is for; its size is compared."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write a repaired mask to this PNG file.")
    ] = None,
) -> None:
    """Check a mask file, and repair it with -o.

    Reads palette, gray and color-coded masks, transparency and 16-bit ids. Repairs soft edges,
    lossy compression and wrong sizes. Exit code 1: the mask cannot be used as it is.

    Example: stremn check-mask first.jpg --frame frames/00000.jpg -o first.png
    """
    from stremn.media.mask_check import diagnose, repair
    from stremn.media.masks import repair_command, write_mask
    from stremn.media.video import open_frames

    size = None
    if frame is not None:
        with open_frames(frame) as frames:
            size = frames.size
    report = diagnose(mask, size)
    for line in report.lines():
        show(line)
    if out is not None:
        write_mask(out, repair(mask, size).labels)
        show(f"wrote {out}")
    elif not report.usable:
        if report.repairable:
            show(f"repair it with: {repair_command(mask, frame)}")
        raise typer.Exit(1)
