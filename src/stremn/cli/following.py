"""Segment a video from the command line: open it, adapt if asked, run, list the results."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

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
    from stremn.cli.options import SessionOptions
    from stremn.media.frames import Frame, FrameSource
    from stremn.media.given import GivenMasks, MaskOf
    from stremn.media.results import ResultWriter
    from stremn.segmentation.pass_store import PassStore
    from stremn.segmentation.passes import Pass
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
    span: Span,
    model: str,
    adapt: int,
    limit: int | None,
) -> None:
    """Segment the given objects through `source`, or resume that, and list the results.

    Args:
        source: video, images, camera or URL, as `open_frames` takes it.
        given: which objects.
        output: what to write, and how to treat an earlier run.
        options: of the session.
        span: which part of the video; frames before the first given object are left out.
        model: preset, weights file, folder or hub id.
        adapt: training steps on the first frame's objects; 0 leaves the model as it is.
        limit: stop after so many frames of the span; None runs to its end.

    Raises:
        StremnError: an input is missing or wrong, or an earlier run is in the way. Finished
                frames are kept.
    """
    from stremn.media.results import ResultWriter
    from stremn.segmentation.both_ways import BothWays

    settings: dict[str, str | float] = {"input": Path(source).name, "model": model}
    settings |= options.settings() | span.settings() | ({"adapt": adapt} if adapt else {})
    out = output.out
    if span.both_ways and limit is not None:
        raise StremnError("--limit and --both-ways do not go together; --end shortens a run too.")
    frames = span.opened(source)
    try:
        masks = given.masks_for(frames)
        first = frames.start if span.both_ways else masks.frames[0]
        backward = span.both_ways and masks.frames[-1] > first
        if backward:
            _check_backward(frames, masks.frames[-1])
        _tell_left_out(frames.start, first)
        frames = reopened(frames, source, first)
        with ResultWriter(
            out,
            fps=frames.fps,
            settings=settings,
            existing=output.existing,
            probabilities=output.probabilities,
            coco=output.coco,
            style=output.style,
            first=first,
            overlay_fps=output.fps,
            pixel_aspect=frames.pixel_aspect,
            sound=frames.sound,
        ) as writer:
            if writer.finished:
                say(f"{out} already holds the finished run. Use --overwrite to replace it.")
                return
            if limit is not None and first + limit <= writer.next_frame:
                say(
                    f"{out} already holds {_frames(writer.next_frame - first)}. --limit counts "
                    "from the first frame of the run: give a higher one to continue."
                )
                return
            if adapt:
                _refuse_live(frames)
                shown = _first_given(frames, source, masks)
                model = str(_adapted(model, shown, masks, adapt, writer, options))
            if limit == 1:
                _write_preview(frames.peek(), masks, out)
            passing: SegmentationSession | Pass
            if backward:
                store = _backward(frames, masks, model, options, writer, settings)
                session = _session(writer.state_path, model, options)
                passing = BothWays(session, masks, store, first=first, done=writer.written)
            else:
                passing = _session(writer.state_path, model, options)
            frames = reopened(frames, source, writer.read_from)
            run(frames, passing, masks, writer, limit)
    finally:
        frames.close()


def run(
    frames: FrameSource,
    session: SegmentationSession | Pass,
    mask_of: MaskOf,
    writer: ResultWriter,
    limit: int | None = None,
) -> Summary:
    """Segment with a progress bar and list the results."""
    from stremn.segmentation.pipeline import segment_video

    start, out = writer.next_frame - writer.first, writer.out
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
    for kind, path in writer.files().items():
        say(f"  {kind:<10} {path}")
    return summary


def _tell_left_out(start: int, first: int) -> None:
    if first > start:
        say(
            f"The first object is given in frame {first}; frames {start} to {first - 1} are left "
            "out."
        )


def _frames(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"


def _check_backward(frames: FrameSource, last: int) -> None:
    """Refuse a video that cannot be read backward, before anything is made."""
    with closing(frames.backward(last, last)) as there:
        next(there)


def _backward(
    frames: FrameSource,
    masks: GivenMasks,
    model: str,
    options: SessionOptions,
    writer: ResultWriter,
    settings: Mapping[str, str | float],
) -> PassStore:
    """Follow the objects backward to the writer's first frame, with a progress bar; or go on."""
    from stremn.segmentation.both_ways import FOLDER, follow_backward
    from stremn.segmentation.pass_store import PassStore

    folder = writer.resume_folder / FOLDER
    given = {"given": list(masks.frames), "first": writer.first}
    store = PassStore(folder, {**settings, **given}, resume=writer.resumes)
    if store.complete:
        return store
    session = _session(store.state_path, model, options)
    total, done = masks.frames[-1] - writer.first + 1, session.frame + 1
    with (
        frame_progress("backward", total, done) as show_progress,
        stopping_between_frames() as stop_if_asked,
    ):

        def watch(count: int, result: StepResult) -> None:
            show_progress(count, result)
            stop_if_asked()

        try:
            follow_backward(frames, session, masks, store, first=writer.first, watch=watch)
        except (StremnError, KeyboardInterrupt):
            say("--resume goes on with the backward pass from there.")
            raise
    return store


def _refuse_live(frames: FrameSource) -> None:
    from stremn.media.results import ADAPTED

    if frames.live:
        raise StremnError(
            f"--adapt does not work on a live source ({frames.label}), because training takes "
            f"minutes. Record a short video, adapt to it, and give its {ADAPTED} as --model."
        )


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
    from stremn.media.masks import overlay

    mask = mask_of(frame)
    assert mask is not None  # `masks_for` requires one
    with replacing(out / PREVIEW) as temporary:
        Image.fromarray(overlay(frame.image, mask.labels)).save(temporary)
    say(f"Preview of the given objects: {out / PREVIEW}")


def _adapted(
    model: str,
    frame: Frame,
    mask_of: MaskOf,
    steps: int,
    writer: ResultWriter,
    options: SessionOptions,
) -> Path:
    """Adapt the model to a frame's given objects; a resumed run uses its earlier weights.

    A session is opened first, so that a wrong option is found before training.
    """
    from stremn.media.results import ADAPTED

    path = writer.out / ADAPTED
    if writer.written and path.is_file():
        return path
    from stremn.networks.pretrained import load_model
    from stremn.segmentation.sessions import SegmentationSession
    from stremn.training.segmentation.adaptation import adapt

    pretrained, device = load_model(model), options.device
    SegmentationSession.from_pretrained(pretrained, device=device, **options.of_session())
    mask = mask_of(frame)
    assert mask is not None  # `masks_for` requires one
    with step_progress("adapting") as watch:
        adapted = adapt(
            pretrained, frame.image, mask.labels, steps=steps, device=device, watch=watch
        )
    adapted.save(path)
    return path


def _session(state: Path | None, model: str, options: SessionOptions) -> SegmentationSession:
    """Load the saved state, or open a new session."""
    from stremn.segmentation.sessions import SegmentationSession

    with console.status("loading the model"):
        if state is not None:
            return SegmentationSession.load(state, model, device=options.device)
        return SegmentationSession.from_pretrained(
            model, device=options.device, **options.of_session()
        )
