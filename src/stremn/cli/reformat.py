"""`stremn reformat`: write a finished run in other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stremn.cli.panels import FOLLOW
from stremn.cli.segment_options import CategoryNames, FormatNames, chosen_formats
from stremn.cli.terminal import say, step_progress
from stremn.errors import StremnError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=FOLLOW)(reformat)


def reformat(
    out: Annotated[Path, typer.Argument(help="Output folder of `stremn segment`.")],
    formats: FormatNames = None,
    names: CategoryNames = None,
    video: Annotated[
        str | None, typer.Option(help="Video of the run, for formats that contain its frames.")
    ] = None,
) -> None:
    """Write the masks of a finished run in other formats.

    Example: stremn reformat out --format yolo --names "1=cat"
    """
    from stremn.media.formats.open_formats import output_of
    from stremn.media.formats.reformat import write_formats
    from stremn.media.video import open_frames

    chosen = chosen_formats(formats, False, names)
    if not chosen:
        raise StremnError("Say which format: --format coco, for example; --help lists them.")
    frames = None if video is None else open_frames(video)
    total = 0 if frames is None else frames.count or 0
    with step_progress("writing") as watch:
        done = write_formats(out, chosen, frames, lambda done: watch(done, max(done, total)))
    say(f"{done} frames are in " + ", ".join(str(output_of(item, out)) for item in chosen) + ".")
