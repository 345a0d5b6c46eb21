"""`stremn evaluate prompts`: score the masks found from boxes and clicks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stremn.cli.evaluate import evaluate_app
from stremn.cli.options import Device, PromptModel
from stremn.cli.terminal import say, show


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    evaluate_app.command("prompts")(prompts)


def prompts(
    root: Annotated[Path, typer.Option(help="Folder of the data set.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for prompts.json.")],
    layout: Annotated[
        str,
        typer.Option(
            help="davis (first frames), or still images: folder (images/, masks/ with "
            "instance ids), duts, ecssd, hku-is, msra10k, coco, sbd."
        ),
    ] = "davis",
    split: Annotated[str | None, typer.Option(help="davis: split; default val.")] = None,
    year: Annotated[int, typer.Option(help="davis: edition.")] = 2016,
    names: Annotated[
        Path | None, typer.Option(help="Still images: file with the names to use, one per line.")
    ] = None,
    prompt_model: PromptModel = "small",
    clicks: Annotated[int, typer.Option(min=1, help="Maximum number of clicks.")] = 20,
    device: Device = "auto",
) -> None:
    """Score boxes and clicks: mean IoU after each, and the number of clicks to an IoU (NoC).

    Each further click is placed at the center of the largest error, as in f-BRS, RITM and
    FocalClick.

    Example: stremn evaluate prompts --root $STREMN_DATA/davis --split dev -o prompts
    """
    from stremn.evaluation.prompting import evaluation
    from stremn.prompting.masks import mask_finder

    find = mask_finder(prompt_model, device=device)
    davis = layout == "davis"
    examples = (
        evaluation.first_frames(root, split, year)
        if davis
        else evaluation.stills(root, layout, names)
    )

    def watch(result: evaluation.PromptScores) -> None:
        say(f"{result.name}: box {result.tight:.3f}, 1 click {result.clicks[0]:.3f}")

    found = evaluation.run(find, examples, out, clicks=clicks, watch=watch)
    for name, each in found.items():
        interval = f"  [{each.low:.3f}, {each.high:.3f}]" if each.known else ""
        show(f"{name:>10}  {each.mean:7.3f}{interval}")
    if not all(each.known for each in found.values()):
        say("Too few objects for 95 % intervals.")
    say(f"Scores of each object: {out / evaluation.RESULTS}")
