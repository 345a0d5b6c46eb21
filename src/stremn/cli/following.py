"""Segment a video from the command line: open it, adapt if asked, run, list the results."""

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
    from stremn.cli.segment_options import Given, Output
    from stremn.media.frames import FrameSource
    from stremn.media.given import MaskOf
    from stremn.media.results import ResultWriter
    from stremn.segmentation.opening import Asked, OwnModel, Session, VideoModel
    from stremn.segmentation.pipeline import RunSummary
    from stremn.segmentation.reports import StepResult

PREVIEW = "preview.png"


def follow(
    source: str,
    given: Given,
    output: Output,
    model: VideoModel,
    asked: Asked,
    *,
    adapt: int,
    limit: int | None,
) -> None:
    """Segment the given objects through `source`, or resume that, and list the results.

    Args:
        source: video, images, camera or URL, as `open_frames` takes it.
        given: which objects.
        output: what to write, and how to treat an earlier run.
        model: what opens the session.
        asked: options of the session, settled.
        adapt: training steps on the first frame's objects; 0 leaves the model as it is.
        limit: stop before this frame; None runs to the end.

    Raises:
        StremnError: an input is missing or wrong, or an earlier run is in the way. Finished
                frames are kept.
    """
    from stremn.media.results import ResultWriter
    from stremn.media.video import open_frames

    settings: dict[str, str | float] = {"input": Path(source).name, "model": model.source}
    settings |= asked.settings() | ({"adapt": adapt} if adapt else {})
    settings |= {"names": output.names} if output.names else {}
    out = output.out
    with open_frames(source) as frames:
        mask_of = given.masks_for(frames)
        _check_formats(output, frames, mask_of)
        with ResultWriter(
            out,
            fps=frames.fps,
            settings=settings,
            existing=output.existing,
            probabilities=output.probabilities,
            formats=output.formats,
            style=output.style,
        ) as writer:
            if writer.finished:
                say(f"{out} already holds the finished run. Use --overwrite to replace it.")
                return
            if limit is not None and limit <= writer.next_frame:
                say(
                    f"{out} already holds {_frames(writer.next_frame)}. --limit counts from the "
                    "first frame of the video: give a higher one to continue."
                )
                return
            if adapt:
                model = _adapted(model, frames, mask_of, adapt, writer, asked)
            session = _session(writer.state_path, model, asked)
            if limit == 1:
                _write_preview(frames, mask_of, out)
            if writer.read_from:
                frames.close()
                frames = open_frames(source, start=writer.read_from)
            run(frames, session, mask_of, writer, limit)


def run(
    frames: FrameSource,
    session: Session,
    mask_of: MaskOf,
    writer: ResultWriter,
    limit: int | None = None,
) -> RunSummary:
    """Segment with a progress bar and list the results."""
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
            say(f"{_frames(writer.written)} are in {out}. Use --resume to continue.")
        raise
    say(
        f"{_frames(summary.frames)} at {summary.frames_per_second:.1f} frames/s; memory "
        f"{megabytes(summary.memory_bytes)}, constant."
    )
    for kind, path in writer.files().items():
        say(f"  {kind:<10} {path}")
    return summary


def _check_formats(output: Output, frames: FrameSource, mask_of: MaskOf) -> None:
    """Raise StremnError if a format cannot hold the objects that are given first."""
    from stremn.media.formats.open_formats import check_formats
    from stremn.media.given import first_mask

    first = frames.peek()
    ids = frozenset(first_mask(mask_of, first).ids)
    check_formats(output.formats, ids, (first.image.shape[0], first.image.shape[1]))


def _frames(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"


def _write_preview(frames: FrameSource, mask_of: MaskOf, out: Path) -> None:
    """Write the first frame with the given objects drawn on it."""
    from PIL import Image

    from stremn.core.atomic_files import replacing
    from stremn.media.given import first_mask
    from stremn.media.masks import overlay

    first = frames.peek()
    shown = overlay(first.image, first_mask(mask_of, first).labels)
    with replacing(out / PREVIEW) as temporary:
        Image.fromarray(shown).save(temporary)
    say(f"Preview of the given objects: {out / PREVIEW}")


def _adapted(
    model: VideoModel,
    frames: FrameSource,
    mask_of: MaskOf,
    steps: int,
    writer: ResultWriter,
    asked: Asked,
) -> OwnModel:
    """Adapt the model to the first frame's objects; a resumed run uses its earlier weights.

    A session is opened first, so that a wrong option is found before training.
    """
    from stremn.media.results import ADAPTED
    from stremn.segmentation.opening import OwnModel

    path = writer.out / ADAPTED
    if writer.next_frame and path.is_file():
        return OwnModel(str(path))
    if frames.live:
        raise StremnError(
            f"--adapt does not work on a live source ({frames.label}), because training takes "
            f"minutes. Record a short video, adapt to it, and give its {ADAPTED} as --model."
        )
    from stremn.media.given import first_mask
    from stremn.training.segmentation.adaptation import adapt

    model.open(asked)
    first = frames.peek()
    mask = first_mask(mask_of, first)
    with step_progress("adapting") as watch:
        adapted = adapt(
            model.pretrained(),
            first.image,
            mask.labels,
            steps=steps,
            device=asked.device,
            watch=watch,
        )
    adapted.save(path)
    return OwnModel(str(path))


def _session(state: Path | None, model: VideoModel, asked: Asked) -> Session:
    """Load the saved state, or open a new session."""
    with console.status("loading the model"):
        return model.open(asked) if state is None else model.resume(state, asked)
