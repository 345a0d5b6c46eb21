"""`stremn segment`: follow objects through a video."""

from __future__ import annotations

from pathlib import Path

import typer

from stremn.cli.options import (
    Adapt,
    Device,
    Every,
    Model,
    Out,
    Policy,
    Precision,
    PromptModel,
    Reach,
    SessionOptions,
    Size,
    Slots,
    asked,
)
from stremn.cli.panels import FOLLOW
from stremn.cli.segment_options import (
    BoxText,
    ClickText,
    Coco,
    Exclude,
    Given,
    Labels,
    Limit,
    Mask,
    Objects,
    Opacity,
    Outline,
    Output,
    Overwrite,
    Probabilities,
    Resume,
    Source,
    existing_run,
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(rich_help_panel=FOLLOW)(segment)


def segment(
    source: Source,
    mask: Mask = None,
    out: Out = Path("out"),
    box: BoxText = None,
    click: ClickText = None,
    exclude: Exclude = None,
    objects: Objects = None,
    prompt_model: PromptModel = "small",
    model: Model = "small",
    slots: Slots = 6,
    policy: Policy = "evidence",
    device: Device = "auto",
    precision: Precision = "auto",
    size: Size = None,
    reach: Reach = None,
    every: Every = None,
    adapt: Adapt = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    probabilities: Probabilities = False,
    coco: Coco = False,
    opacity: Opacity = 0.3,
    outline: Outline = True,
    labels: Labels = True,
    limit: Limit = None,
) -> None:
    """Follow the objects of a mask through a video of any length.

    Writes OUT/masks/*.png (palette PNGs with your ids, at the video's size), OUT/overlay.mp4,
    OUT/memory.json (which frames the memory held, frame by frame) and OUT/memory.png; with
    --adapt OUT/adapted.safetensors, which --model takes for other videos of the same objects.

    Example: stremn segment clip.mp4 --mask first.png -o out
    """
    from stremn.cli.following import follow
    from stremn.media.drawing import OverlayStyle

    session = SessionOptions(slots, policy, device, precision, asked(model, size, reach, every))
    style = OverlayStyle(opacity, outline, labels)
    given = Given(mask, box, click, exclude, tuple(objects or ()), prompt_model, device)
    output = Output(out, existing_run(resume, overwrite), probabilities, coco, style)
    follow(source, given, output, session.checked(), model=model, adapt=adapt, limit=limit)
