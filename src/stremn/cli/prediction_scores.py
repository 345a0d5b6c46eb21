"""`stremn evaluate prediction`: score frame predictors (Table 5)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stremn.cli.evaluate import evaluate_app
from stremn.cli.options import Device, grouped
from stremn.cli.terminal import console, show

if TYPE_CHECKING:
    from stremn.data.readers.prediction_sets import ClipsSection


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
    """Add the command of this file."""
    evaluate_app.command("prediction")(prediction)


@dataclass(frozen=True)
class Scored:
    """Which clips are scored, and how their frames are cut."""

    root: Annotated[Path, typer.Option(help="Folder of the data.")]
    split: Annotated[Split, typer.Option(help="Split of the data.")] = Split.TEST
    observed: Annotated[int, typer.Option(min=1, help="Number of observed frames.")] = 10
    future: Annotated[int, typer.Option(min=1, help="Number of predicted frames.")] = 10
    size: Annotated[int, typer.Option(help="Side of the frames in pixels.")] = 64
    side: Annotated[int, typer.Option(help="Side of a digit in pixels.")] = 28
    channels: Annotated[int, typer.Option(help="1 for gray, 3 for RGB; folders only.")] = 1
    own_size: Annotated[
        bool,
        typer.Option("--own-size", help="Use whole frames at their original size; natural only."),
    ] = False
    clips: Annotated[int, typer.Option(min=1, help="Maximum number of clips.")] = 1000

    def section(self, kind: Clips) -> ClipsSection:
        """Return the clips as data readers take them; raises StremnError for a wrong number."""
        from stremn.core.config import build
        from stremn.data.readers.prediction_sets import ClipsSection

        in_color = kind in (Clips.HUMAN_WALKING, Clips.NATURAL, Clips.PHOTO_PANS)
        values = {"kind": kind.value, "path": str(self.root), "size": self.size, "side": self.side}
        values |= {"channels": 3 if in_color else self.channels}
        values |= {"own_size": True} if self.own_size else {}
        return build(ClipsSection, values, "the options")


@grouped
def prediction(
    data: Annotated[Clips, typer.Argument(help="Kind of clips.")],
    scored: Scored,
    *,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="Name of shipped weights, or a weights file. Repeatable."),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            "--rule",
            help="Also score the weights with this replacement rule. Repeatable.",
        ),
    ] = None,
    lpips: Annotated[
        bool, typer.Option("--lpips", help="Add LPIPS; needs the weights of AlexNet.")
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            help="Add the paired difference per frame from a baseline: flow, fine-flow, copy-last, "
            "mean, zero."
        ),
    ] = None,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for a report.")] = None,
) -> None:
    """Score frame predictors: MSE, MAE, PSNR, SSIM, LPIPS.

    Five baselines are always scored: black (`zero`), the last frame (`copy-last`), the mean frame
    (`mean`), and the last frame moved by optical flow of half and of full resolution (`flow`,
    `fine-flow`).

    With `-o`, the report is rewritten after every predictor; its plots need the extra `study`.

    Example: stremn evaluate prediction moving-digits --root mnist --weights digits
    """
    from stremn.evaluation.prediction.report import evaluate_prediction

    with console.status("scoring") as status:
        text = evaluate_prediction(
            scored.section(data),
            weights or [],
            split=scored.split.value,
            observed=scored.observed,
            future=scored.future,
            policies=policy or [],
            clips=scored.clips,
            lpips=lpips,
            against=against,
            device=device,
            out=out,
            progress=lambda name, done, total: status.update(f"{name}: {done} of {total} clips"),
        )
    show(text)
