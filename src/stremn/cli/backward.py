"""Run the backward pass of `--both-ways`, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from stremn.cli.terminal import frame_progress, say, stopping_between_frames
from stremn.errors import StremnError

if TYPE_CHECKING:
    from stremn.media.frames import FrameSource
    from stremn.media.given import GivenMasks
    from stremn.media.results import ResultWriter
    from stremn.segmentation.opening import Session
    from stremn.segmentation.pass_store import PassStore
    from stremn.segmentation.reports import StepResult


def check_backward(frames: FrameSource, last: int) -> None:
    """Refuse a video that cannot be read backward from a frame, before any output is created."""
    with closing(frames.backward(last, last)) as there:
        next(there)


def follow_backward_first(
    frames: FrameSource,
    masks: GivenMasks,
    writer: ResultWriter,
    settings: Mapping[str, str | float],
    open_session: Callable[[Path | None], Session],
) -> PassStore:
    """Follow the objects from the last given frame back to the writer's first, or resume that.

    Args:
        frames: the video.
        masks: the objects.
        writer: of the run.
        settings: what a resumed pass must share.
        open_session: opens a session, from a saved state if there is one.

    Raises:
        StremnError: as `follow_backward`; what is done is kept.
    """
    from stremn.segmentation.both_ways import FOLDER, follow_backward
    from stremn.segmentation.pass_store import PassStore

    given = {"given": list(masks.frames), "first": writer.first}
    folder = writer.resume_folder / FOLDER
    store = PassStore(folder, {**settings, **given}, resume=writer.resumes)
    if store.complete:
        return store
    session = open_session(store.state_path)
    total, done = masks.last - writer.first + 1, session.frame + 1
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
            say("Use --resume to continue the backward pass.")
            raise
    return store
