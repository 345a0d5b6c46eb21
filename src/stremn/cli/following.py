"""Following a video from the command line: open, adapt if asked, run with a progress bar, tell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stremn.cli.terminal import (
    console,
    frame_progress,
    megabytes,
    say,
    step_progress,
    stopping_between_frames,
)
from stremn.errors import StremnError

if TYPE_CHECKING:
    from stremn.cli.options import SessionOptions
    from stremn.cli.segment_options import Given, Output
    from stremn.media.frames import FrameSource
    from stremn.media.given import MaskOf
    from stremn.media.results import ResultWriter
    from stremn.segmentation.pipeline import Summary
    from stremn.segmentation.reports import StepResult
    from stremn.segmentation.sessions import SegmentationSession

PREVIEW = "preview.png"


def follow(
    source: str,
    given: Given,
    output: Output,
    options: SessionOptions,
    *,
    model: str,
    adapt: int,
    limit: int | None,
) -> None:
    """Follow the given objects through `source`, or go on with that; say where the results are.

    Args:
        source: video, images, camera or URL, as `open_frames` takes it.
        given: which objects.
        output: what is written, and what is done with an earlier run.
        options: of the session.
        model: preset, weights file, folder or hub id.
        adapt: training steps on the first frame's objects; 0 leaves the model as it is.
        limit: stop before this frame; None runs to the end.

    Raises:
        StremnError: something given is missing, wrong or in the way; what is done is kept.
    """
    from stremn.media.results import ResultWriter
    from stremn.media.video import open_frames

    settings: dict[str, str | float] = {"input": Path(source).name, "model": model}
    settings |= options.settings() | ({"adapt": adapt} if adapt else {})
    out = output.out
    with open_frames(source) as frames:
        mask_of = given.masks_for(frames)
        with ResultWriter(
            out,
            fps=frames.fps,
            settings=settings,
            existing=output.existing,
            probabilities=output.probabilities,
            coco=output.coco,
            style=output.style,
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
                model = str(_adapted(model, frames, mask_of, adapt, writer, options))
            session = _session(writer.state_path, model, options)
            if limit == 1:
                _write_preview(frames, mask_of, out)
            if writer.read_from:
                frames.close()
                frames = open_frames(source, start=writer.read_from)
            run(frames, session, mask_of, writer, limit)


def run(
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


def _write_preview(frames: FrameSource, mask_of: MaskOf, out: Path) -> None:
    """Write the first frame with the given objects over it."""
    from PIL import Image

    from stremn.core.atomic_files import replacing
    from stremn.media.masks import overlay

    first = frames.peek()
    mask = mask_of(first)
    assert mask is not None  # `masks_for` sees to that
    with replacing(out / PREVIEW) as temporary:
        Image.fromarray(overlay(first.image, mask.labels)).save(temporary)
    say(f"The given objects are drawn in {out / PREVIEW}.")


def _adapted(
    model: str,
    frames: FrameSource,
    mask_of: MaskOf,
    steps: int,
    writer: ResultWriter,
    options: SessionOptions,
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

    pretrained, device = load_model(model), options.device
    SegmentationSession.from_pretrained(pretrained, device=device, **options.of_session())
    first = frames.peek()
    mask = mask_of(first)
    assert mask is not None  # `masks_for` sees to that
    with step_progress("adapting") as watch:
        adapted = adapt(
            pretrained, first.image, mask.labels, steps=steps, device=device, watch=watch
        )
    adapted.save(path)
    return path


def _session(state: Path | None, model: str, options: SessionOptions) -> SegmentationSession:
    """Go on from a saved state, or start anew."""
    from stremn.segmentation.sessions import SegmentationSession

    with console.status("loading the model"):
        if state is not None:
            return SegmentationSession.load(state, model, device=options.device)
        return SegmentationSession.from_pretrained(
            model, device=options.device, **options.of_session()
        )
