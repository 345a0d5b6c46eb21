"""`stremn demo`: segment a clip that the package draws."""

from __future__ import annotations

from pathlib import Path

import typer

from stremn.cli.options import Device, Out, Policy, Slots
from stremn.cli.panels import FOLLOW
from stremn.cli.terminal import console, say
from stremn.networks.defaults import SHIPPED


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=FOLLOW)(demo)


def demo(
    out: Out = Path("stremn-demo"),
    slots: Slots = SHIPPED.memory_slots,
    policy: Policy = SHIPPED.policy,
    device: Device = "auto",
) -> None:
    """Draw a clip of two balloons and follow both (120 frames, 640x360).

    Writes OUT/clip.mp4 and OUT/clip-first.png, which `stremn segment` takes, and the results.

    Example: stremn demo
    """
    from stremn.cli.following import run
    from stremn.media.demo import write_demo
    from stremn.media.files import make_folder
    from stremn.media.given import masks_for
    from stremn.media.results import ResultWriter
    from stremn.media.video import open_frames
    from stremn.segmentation.sessions import SegmentationSession

    session = SegmentationSession.from_pretrained(
        "small", device=device, memory_slots=slots, policy=policy
    )
    with console.status("drawing the clip"):
        clip, mask = write_demo(make_folder(out))
    frames = open_frames(clip)
    mask_of = masks_for(frames, mask)
    writer = ResultWriter(out, fps=frames.fps, existing="replace")
    run(frames, session, mask_of, writer)
    say(f"  clip       {clip}\n  mask       {mask}")
    say("Open the overlay first. For your own video: stremn segment VIDEO --box x,y,width,height")
