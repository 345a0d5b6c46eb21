"""`stremn evaluate prediction`: score frame predictors (Table 5)."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stremn.cli.evaluate import evaluate_app
from stremn.cli.options import Device
from stremn.cli.terminal import console, show


class Split(StrEnum):
    """Splits of a set of clips."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class Clips(StrEnum):
    """Kinds of clips that can be scored."""

    MOVING_DIGITS = "moving-digits"
    HIDDEN_DIGIT = "hidden-digit"
    KTH = "kth"
    HUMAN_WALKING = "human-walking"
    FOLDER = "folder"
    NATURAL = "natural"
    PHOTO_PANS = "photo-pans"


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    evaluate_app.command("prediction")(prediction)


def prediction(
    data: Annotated[Clips, typer.Argument(help="Kind of clips.")],
    root: Annotated[Path, typer.Option(help="Folder of the data.")],
    weights: Annotated[
        list[str] | None,
        typer.Option(help="Name of shipped weights, or a weights file. Repeatable."),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            "--rule",
            help="Also score the weights under this replacement rule. Repeatable.",
        ),
    ] = None,
    split: Annotated[Split, typer.Option(help="Split of the data.")] = Split.TEST,
    observed: Annotated[int, typer.Option(help="Number of observed frames.")] = 10,
    future: Annotated[int, typer.Option(help="Number of predicted frames.")] = 10,
    size: Annotated[int, typer.Option(help="Side of the frames in pixels.")] = 64,
    side: Annotated[int, typer.Option(help="Side of a digit in pixels.")] = 28,
    channels: Annotated[int, typer.Option(help="1 for grey, 3 for RGB; folders only.")] = 1,
    own_size: Annotated[
        bool, typer.Option("--own-size", help="Whole frames at their own size; natural only.")
    ] = False,
    clips: Annotated[int, typer.Option(help="At most so many clips.")] = 1000,
    lpips: Annotated[
        bool, typer.Option("--lpips", help="Add LPIPS; needs AlexNet's weights.")
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(help="Add the paired difference to flow, copy-last, mean or zero by frame."),
    ] = None,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for a report.")] = None,
) -> None:
    """Score frame predictors: MSE, MAE, PSNR, SSIM, LPIPS.

    Black, the last frame, the mean frame and the last frame moved by optical flow are always in
    the table.

    Example: stremn evaluate prediction moving-digits --root mnist --weights digits
    """
    from stremn.core.config import build
    from stremn.data.readers.prediction_sets import ClipsSection
    from stremn.evaluation.prediction.report import evaluate_prediction

    rgb = 3 if data in (Clips.HUMAN_WALKING, Clips.NATURAL, Clips.PHOTO_PANS) else channels
    values = {"kind": data.value, "path": str(root), "size": size, "side": side, "channels": rgb}
    values |= {"own_size": own_size} if own_size else {}
    with console.status("scoring") as status:
        text = evaluate_prediction(
            build(ClipsSection, values, "the options"),
            weights or [],
            split=split.value,
            observed=observed,
            future=future,
            policies=policy or [],
            clips=clips,
            lpips=lpips,
            against=against,
            device=device,
            out=out,
            progress=lambda name, done, total: status.update(f"{name}: {done} of {total} clips"),
        )
    show(text)
