"""Segment a video from the command line: open it, adapt if asked, run, list the results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stremn.cli.backward import check_backward, follow_backward_first
from stremn.cli.segment_options import Given, Output, Span, reopened
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
    from stremn.media.frames import Frame, FrameSource
    from stremn.media.given import GivenMasks, MaskOf
    from stremn.media.results import ResultWriter
    from stremn.segmentation.opening import Asked, OwnModel, Session, VideoModel
    from stremn.segmentation.passes import Pass
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
    span: Span,
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
        span: which part of the video; frames before the first given object are left out.
        adapt: training steps on the first frame's objects; 0 leaves the model as it is.
        limit: number of frames after which to stop; None: the end of the span.

    Raises:
        StremnError: an input is missing or wrong, or an earlier run is in the way. Finished
                frames are kept.
    """
    from stremn.segmentation.both_ways import BothWays

    if adapt:
        from stremn.training.processes import require_accelerate

        require_accelerate()  # before anything is opened or written
    settings: dict[str, str | float] = {"input": Path(source).name, "model": model.source}
    settings |= asked.settings() | span.settings() | ({"adapt": adapt} if adapt else {})
    settings |= {"names": output.names} if output.names else {}
    out = output.out
    if span.both_ways and limit is not None:
        raise StremnError("--limit and --both-ways do not go together; --end shortens a run too.")
    frames = span.opened(source)
    try:
        masks = given.masks_for(frames, model, asked)
        first = frames.start if span.both_ways else masks.frames[0]
        backward = span.both_ways and masks.last > first
        if backward:
            check_backward(frames, masks.last)
        _tell_left_out(frames.start, first)
        frames = reopened(frames, source, first)
        check_formats(output, frames, masks)
        with output.writer(frames, settings, first=first) as writer:
            if writer.finished:
                say(f"{out} already holds the finished run. Use --overwrite to replace it.")
                return
            if limit is not None and limit <= writer.written:
                say(
                    f"{out} already holds {_frames(writer.written)}. --limit counts from the "
                    "first frame of the run: give a higher one to continue."
                )
                return
            if adapt:
                model = _adapted(model, frames, source, masks, adapt, writer, asked)
            if limit == 1:
                _write_preview(frames.peek(), masks, out)
            passing: Session | Pass
            if backward:
                store = follow_backward_first(
                    frames,
                    masks,
                    writer,
                    settings,
                    lambda state: opened_session(state, model, asked),
                )
                session = opened_session(writer.state_path, model, asked)
                passing = BothWays(session, masks, store, first=first, done=writer.written)
            else:
                passing = opened_session(writer.state_path, model, asked)
            frames = reopened(frames, source, writer.read_from)
            run(frames, passing, masks, writer, limit)
    finally:
        frames.close()


def run(
    frames: FrameSource,
    session: Session | Pass,
    mask_of: MaskOf,
    writer: ResultWriter,
    limit: int | None = None,
) -> RunSummary:
    """Segment with a progress bar and list the results."""
    from stremn.segmentation.pipeline import segment_video

    start, out = writer.written, writer.out
    stop = None if limit is None else writer.first + limit
    ends = [end for end in (stop, frames.stop, frames.count) if end is not None]
    total = min(ends) - writer.first if ends else None
    try:
        with (
            frames,
            frame_progress(frames.label, total, start) as show_progress,
            stopping_between_frames() as stop_if_asked,
        ):

            def watch(done: int, result: StepResult) -> None:
                show_progress(done, result)
                stop_if_asked()

            summary = segment_video(frames, session, mask_of, writer, limit=stop, watch=watch)
    except (StremnError, KeyboardInterrupt):
        if writer.written > start:
            say(f"{_frames(writer.written)} are in {out}. Use --resume to continue.")
        raise
    say(
        f"{_frames(summary.frames)} at {summary.frames_per_second:.1f} frames/s; memory "
        f"{megabytes(summary.memory_bytes)}, constant."
    )
    tell_files(writer)
    return summary


def tell_files(writer: ResultWriter) -> None:
    """List the files of a run."""
    for kind, path in writer.files().items():
        say(f"  {kind:<10} {path}")


def _tell_left_out(start: int, first: int) -> None:
    if first > start:
        say(
            f"The first object is given in frame {first}; frames {start} to {first - 1} are left "
            "out."
        )


def check_formats(output: Output, frames: FrameSource, mask_of: MaskOf) -> None:
    """Raise StremnError if a format cannot hold the objects that are given first."""
    from stremn.media.formats.open_formats import check_formats
    from stremn.media.masks import LabelMap

    first = frames.peek()
    mask = mask_of(first)
    ids = frozenset(mask.ids if isinstance(mask, LabelMap) else ())
    check_formats(output.chosen, ids, (first.image.shape[0], first.image.shape[1]))


def _frames(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"


def _first_given(frames: FrameSource, source: str, masks: GivenMasks) -> Frame:
    """Return the first frame with given objects."""
    from stremn.media.video import open_frames

    if masks.frames[0] == frames.start:
        return frames.peek()
    with open_frames(source, start=masks.frames[0]) as there:
        return there.peek()


def _write_preview(frame: Frame, mask_of: MaskOf, out: Path) -> None:
    """Write a frame with the given objects drawn on it."""
    from PIL import Image

    from stremn.core.atomic_files import replacing
    from stremn.media.given import first_mask
    from stremn.media.masks import overlay

    shown = overlay(frame.image, first_mask(mask_of, frame).labels)
    with replacing(out / PREVIEW) as temporary:
        Image.fromarray(shown).save(temporary)
    say(f"Preview of the given objects: {out / PREVIEW}")


def _adapted(
    model: VideoModel,
    frames: FrameSource,
    source: str,
    masks: GivenMasks,
    steps: int,
    writer: ResultWriter,
    asked: Asked,
) -> OwnModel:
    """Adapt the model to the objects given first; a resumed run uses its earlier weights.

    A session is opened first, so that a wrong option is found before training.
    """
    from stremn.media.results import ADAPTED
    from stremn.segmentation.opening import OwnModel

    path = writer.out / ADAPTED
    if writer.written and path.is_file():
        return OwnModel(str(path))
    if frames.live:
        raise StremnError(
            f"--adapt does not work on a live source ({frames.label}), because training takes "
            f"minutes. Record a short video, adapt to it, and give its {ADAPTED} as --model."
        )
    from stremn.media.given import first_mask
    from stremn.training.segmentation.adaptation import adapt

    model.open(asked)
    first = _first_given(frames, source, masks)
    mask = first_mask(masks, first)
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


def opened_session(state: Path | None, model: VideoModel, asked: Asked) -> Session:
    """Load the saved state, or open a new session."""
    with console.status("loading the model"):
        return model.open(asked) if state is None else model.resume(state, asked)
