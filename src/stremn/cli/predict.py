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
    frames: Annotated[int, typer.Option(help="Number of frames to predict.")] = 8,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path(
        "prediction"
    ),
    observe: Annotated[
        int | None,
        typer.Option(help="Observe this many frames; later ones are the truth. Default: all."),
    ] = None,
    holdout: Annotated[
        int, typer.Option(min=0, help="Keep the video's last frames as the truth to compare with.")
    ] = 0,
    weights: Annotated[
        str,
        typer.Option(help="natural (any video), digits (moving digits), or a weights file."),
    ] = "natural",
    size: Annotated[
        int,
        typer.Option(min=16, help="Shorter side to work at in pixels, at most; natural only."),
    ] = 480,
    device: Device = "auto",
) -> None:
    """Predict the next frames of a video.

    Writes OUT/frames/*.png, OUT/side_by_side.mp4 (left the video, right the prediction),
    OUT/strip.png and, where the truth is known, OUT/errors.csv. Says how well the same prediction
    did on the last frames observed. The next few frames are predicted well, later ones blur.

    Example: stremn predict clip.mp4 --holdout 8 --frames 8 -o out
    """
    from stremn.prediction.files import predict_video

    files = predict_video(
        source,
        out,
        frames=frames,
        observe=observe,
        holdout=holdout,
        weights=weights,
        size=size,
        device=device,
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
