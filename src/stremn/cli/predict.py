"""`stremn predict`: predict the next frames of a video."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stremn.cli.options import Device
from stremn.cli.panels import PREDICT
from stremn.cli.terminal import show


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command(rich_help_panel=PREDICT)(predict)


def predict(
    source: Annotated[str, typer.Argument(help="Video file, folder or glob of images, URL.")],
    frames: Annotated[int, typer.Option(help="Number of frames to predict.")] = 20,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path(
        "prediction"
    ),
    observe: Annotated[
        int | None,
        typer.Option(help="Frames to observe; later ones are shown as the truth. Default: all."),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="Name of shipped weights, or a weights file.")
    ] = "digits",
    device: Device = "auto",
) -> None:
    """Predict the next frames of a video.

    Writes OUT/frames/*.png, OUT/side_by_side.mp4 and OUT/strip.png. The shipped weights know
    moving digits of 64x64 pixels only: train your own for other videos.

    Example: stremn predict digits.mp4 --observe 10 --frames 10 -o out
    """
    from stremn.prediction.files import predict_video

    files = predict_video(
        source, out, frames=frames, observe=observe, weights=weights, device=device
    )
    show(files.note)
    show(f"  frames   {out / 'frames'}\n  video    {files.video}\n  strip    {files.strip}")
