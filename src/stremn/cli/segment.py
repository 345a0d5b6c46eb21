"""`stremn segment`: follow objects through a video."""

from __future__ import annotations

import typer

from stremn.cli.options import Adapt, AnyModel, SessionOptions, grouped
from stremn.cli.panels import FOLLOW
from stremn.cli.segment_options import Given, Limit, Live, Output, Port, Source, Span
from stremn.errors import StremnError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=FOLLOW)(segment)


@grouped
def segment(
    source: Source,
    given: Given,
    span: Span,
    session: SessionOptions,
    output: Output,
    *,
    model: AnyModel = "small",
    adapt: Adapt = 0,
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
    from stremn.sam.opening import video_model

    if live:
        now = {"at": given.at, "adapt": adapt, "resume": output.resume, "fps": output.fps}
        _check_live(**vars(span), **now)
    elif port is not None:
        raise StremnError("--port is for the page of --live: give --live too, or leave --port out.")
    asked = session.asked()
    chosen = video_model(model)
    asked = chosen.settled(asked)
    if adapt:
        chosen.check_adaptable()
    output.check()
    if live:
        from stremn.cli.live import PORT, follow_live

        page = PORT if port is None else port
        follow_live(source, given, output, chosen, asked, port=page, limit=limit)
    else:
        follow(source, given, output, chosen, asked, span=span, adapt=adapt, limit=limit)


def _check_live(**given: object) -> None:
    """Refuse options that need more of the video than its next frame."""
    for name, value in given.items():
        if value:
            raise StremnError(
                f"--live and --{name.replace('_', '-')} do not go together: a live run reads each "
                "frame once, as it arrives."
            )
