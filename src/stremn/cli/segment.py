"""`stremn segment`: follow objects through a video."""

from __future__ import annotations

from pathlib import Path

import typer

from stremn.cli.options import (
    Adapt,
    AnyModel,
    Device,
    Every,
    Out,
    PolicyOrUsual,
    Precision,
    PromptModelOrOwn,
    Reach,
    Size,
    SlotsOrUsual,
    within,
)
from stremn.cli.panels import FOLLOW
from stremn.cli.segment_options import (
    At,
    BothWays,
    BoxText,
    CategoryNames,
    ClickText,
    Coco,
    End,
    Exclude,
    FormatNames,
    Fps,
    Given,
    Labels,
    Limit,
    Live,
    Mask,
    Objects,
    Opacity,
    Outline,
    Output,
    Overwrite,
    Port,
    Probabilities,
    Resume,
    Scale,
    Source,
    Span,
    Start,
    chosen_formats,
    existing_run,
    finding,
)
from stremn.errors import StremnError


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
    at: At = None,
    start: Start = None,
    end: End = None,
    both_ways: BothWays = False,
    prompt_model: PromptModelOrOwn = None,
    model: AnyModel = "small",
    slots: SlotsOrUsual = None,
    policy: PolicyOrUsual = None,
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
    formats: FormatNames = None,
    names: CategoryNames = None,
    opacity: Opacity = 0.3,
    outline: Outline = True,
    labels: Labels = True,
    fps: Fps = None,
    scale: Scale = 1.0,
    limit: Limit = None,
    live: Live = False,
    port: Port = None,
) -> None:
    """Segment objects through a video of any length, from a mask, box or click.

    Writes OUT/masks/*.png (palette PNGs with your ids, at the size of the video), OUT/overlay.mp4,
    OUT/objects.csv (where each object is in each frame), OUT/memory.json (the frames in the memory
    at each step) and OUT/memory.png. With --adapt also OUT/adapted.safetensors; use it as --model
    for other videos of the same objects.

    Example: stremn segment clip.mp4 --mask first.png -o out
    """
    from stremn.cli.following import follow
    from stremn.media.drawing import OverlayStyle
    from stremn.sam.opening import video_model
    from stremn.segmentation.opening import Asked

    if live:
        _check_live(
            start=start, end=end, at=at, both_ways=both_ways, adapt=adapt, resume=resume, fps=fps
        )
    elif port is not None:
        raise StremnError("--port is of the page of --live, which is not asked for.")
    if reach is not None:
        within(reach)
    chosen = video_model(model)
    asked = chosen.settled(Asked(slots, policy, size, reach, every, precision, device))
    if adapt:
        chosen.check_adaptable()
    style = OverlayStyle(opacity, outline, labels, scale)
    find = finding(chosen, asked, prompt_model)
    given = Given(mask, box, click, exclude, tuple(objects or ()), at, find)
    written = chosen_formats(formats, coco, names)
    output = Output(out, existing_run(resume, overwrite), probabilities, style, written, names, fps)
    if live:
        from stremn.cli.live import PORT, follow_live

        page = PORT if port is None else port
        follow_live(source, given, output, chosen, asked, port=page, limit=limit)
        return
    span = Span(start, end, both_ways)
    follow(source, given, output, chosen, asked, span=span, adapt=adapt, limit=limit)


def _check_live(**given: object) -> None:
    """Refuse options that need more of a video than the frame that comes next."""
    for name, value in given.items():
        if value:
            raise StremnError(
                f"--live and --{name.replace('_', '-')} do not go together: a live run takes what "
                "comes from its beginning on, once."
            )
