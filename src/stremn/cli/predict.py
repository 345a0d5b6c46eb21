"""`stremn predict`: predict the next frames of a video."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stremn.cli.options import Device
from stremn.cli.panels import PREDICT
from stremn.cli.terminal import show, work_progress


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(rich_help_panel=PREDICT)(predict)


def predict(
    source: Annotated[str, typer.Argument(help="Video file, folder or glob of images, URL.")],
    frames: Annotated[int, typer.Option(help="Number of frames to predict.")] = 8,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path(
        "prediction"
    ),
    observe: Annotated[
        int | None,
        typer.Option(
            help="Observe only this many frames; the next ones are the ground truth. Default: all."
        ),
    ] = None,
    holdout: Annotated[
        int, typer.Option(min=0, help="Hold out this many frames at the end as ground truth.")
    ] = 0,
    weights: Annotated[
        str,
        typer.Option(help="natural (any video), digits (moving digits), or a weights file."),
    ] = "natural",
    size: Annotated[
        int,
        typer.Option(
            min=16, help="Working resolution: largest shorter side in pixels; natural only."
        ),
    ] = 480,
    device: Device = "auto",
) -> None:
    """Predict the next frames of a video.

    Writes OUT/frames/*.png, OUT/side_by_side.mp4 (video on the left, prediction on the right),
    OUT/strip.png and, where the ground truth is known, OUT/errors.csv. Prints the error of the
    same prediction on the last observed frames. Later frames are less accurate than the first.

    Example: stremn predict clip.mp4 --holdout 8 --frames 8 -o out
    """
    from stremn.prediction.files import predict_video

    with work_progress(source) as watch:
        files = predict_video(
            source,
            out,
            frames=frames,
            observe=observe,
            holdout=holdout,
            weights=weights,
            size=size,
            device=device,
            watch=watch,
        )
    show(files.note)
    if weights == "digits":
        show("The weights `digits` know moving digits and nothing else; natural takes any video.")
    if files.tried is not None:
        show(f"Tried on the last frames observed: {files.tried}")
    if files.errors is not None:
        show(f"Against the frames held out: {files.errors}")
    show(f"  frames   {out / 'frames'}\n  video    {files.video}\n  strip    {files.strip}")
    if files.errors is not None:
        show(f"  errors   {out / 'errors.csv'}")
