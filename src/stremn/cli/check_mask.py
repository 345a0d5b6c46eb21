"""`stremn check-mask`: check a mask file, repair it, correct it with boxes and clicks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stremn.cli.options import Device, PromptModel
from stremn.cli.panels import FOLLOW
from stremn.cli.segment_options import BoxText, ClickText, Exclude, Objects
from stremn.cli.terminal import show
from stremn.errors import StremnError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stremn.media.masks import LabelMap
    from stremn.media.object_prompts import ObjectPrompt


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check-mask", rich_help_panel=FOLLOW)(check_mask)


def check_mask(
    mask: Annotated[
        Path | None,
        typer.Argument(help="Mask image. Without one, give `--box`, `--click` or `--object`."),
    ] = None,
    frame: Annotated[
        str | None,
        typer.Option(
            help="Video, folder or image that the mask belongs to. The sizes are compared; boxes "
            "and clicks refer to it."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the mask to this PNG file.")
    ] = None,
    box: BoxText = None,
    click: ClickText = None,
    exclude: Exclude = None,
    objects: Objects = None,
    refine: Annotated[
        bool,
        typer.Option("--refine", help="Align a rough mask with the outlines of its objects."),
    ] = False,
    prompt_model: PromptModel = "small",
    device: Device = "auto",
) -> None:
    """Check a mask file, and repair it with -o.

    Reads palette, gray and color-coded masks, transparency and 16-bit ids. Repairs soft edges,
    lossy compression and wrong sizes. Exit code 1: the mask cannot be used as it is.

    With --frame, boxes and clicks create a mask of the frame, or correct the given one.

    Example: stremn check-mask first.jpg --frame frames/00000.jpg -o first.png

    Example: stremn check-mask first.png --frame clip.mp4 --object "id=1 off=90,60" -o better.png
    """
    from stremn.media.given import parse_prompts
    from stremn.media.mask_check import diagnose, repair
    from stremn.media.masks import repair_command, write_mask
    from stremn.media.video import open_frames

    prompts = parse_prompts(box, click, exclude, objects or ())
    _check_ways(mask, frame, drawn=bool(prompts), refine=refine)
    if prompts or refine:
        assert frame is not None  # `_check_ways` sees to that
        found = _drawn(mask, frame, prompts, refine, prompt_model, device)
        if out is not None:
            write_mask(out, found.labels)
        for line in diagnose(found.labels).lines():
            show(line)
        if out is not None:
            show(f"wrote {out}")
        return
    assert mask is not None  # as above
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


def _check_ways(mask: Path | None, frame: str | None, *, drawn: bool, refine: bool) -> None:
    if mask is None and not drawn:
        raise StremnError(
            "Give a mask image, or say what to find in --frame: --box x,y,w,h, --click x,y or "
            '--object "box=x,y,w,h".'
        )
    if (drawn or refine) and frame is None:
        raise StremnError("Boxes, clicks and --refine need the picture: give --frame too.")
    if refine and mask is None:
        raise StremnError("--refine needs a mask to refine.")


def _drawn(
    mask: Path | None,
    source: str,
    prompts: Sequence[ObjectPrompt],
    refine: bool,
    prompt_model: str,
    device: str,
) -> LabelMap:
    """Return the objects of a mask and of prompts, in the frame that the prompts name."""
    from stremn.media.given import check_prompts
    from stremn.media.mask_check import repair
    from stremn.media.object_prompts import find_objects, refine_objects
    from stremn.media.video import open_frames
    from stremn.prompting.masks import mask_finder

    named = {prompt.at for prompt in prompts} or {0}
    if len(named) > 1:
        raise StremnError("One mask is of one frame: give all objects the same at=.")
    with open_frames(source) as frames:
        check_prompts(frames, prompts, known=mask is not None)
    with open_frames(source, start=named.pop()) as frames:
        picture = frames.peek().image
        begun = None if mask is None else repair(mask, frames.size)
    find = mask_finder(prompt_model, device=device)
    if refine:
        assert begun is not None  # `_check_ways` sees to that
        begun = refine_objects(picture, begun, find)
    return find_objects(picture, prompts, begun, find)
