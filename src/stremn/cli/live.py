"""Follow objects in a live source: show each result at once, and write it like any run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from stremn.cli.following import check_formats, opened_session, tell_files
from stremn.cli.segment_options import Given, Output
from stremn.cli.terminal import live_progress, megabytes, say
from stremn.core.signals import stop_requests
from stremn.errors import StremnError
from stremn.segmentation.passes import SessionPass

if TYPE_CHECKING:
    import numpy as np

    from stremn.media.frames import Frame
    from stremn.media.given import Correction
    from stremn.media.live import Newest
    from stremn.media.masks import LabelMap
    from stremn.segmentation.opening import Asked, Session, VideoModel
    from stremn.segmentation.reports import StepResult

PORT = 7861
"""Of the page, if no other is asked for."""


class Screen(Protocol):
    """Where the newest picture is shown."""

    @property
    def closed(self) -> bool:
        """Whether the user has closed it."""
        ...

    def show(self, draw: Callable[[], np.ndarray], words: str) -> None:
        """Show the RGB picture that `draw` returns, and words about it."""
        ...


def follow_live(
    source: str,
    given: Given,
    output: Output,
    model: VideoModel,
    asked: Asked,
    *,
    port: int,
    limit: int | None,
) -> None:
    """Segment the given objects in the stream of `source`, until it ends or Ctrl-C.

    Args:
        source: camera, address, video or images, as `open_frames` takes it; recordings are played.
        given: which objects, in the first frame.
        output: what to write.
        model: what opens the session; it does so before the source is opened.
        asked: options of the session, settled.
        port: of the page, where there is no window; 0 is any free one.
        limit: number of frames after which to stop; None: no limit.

    Raises:
        StremnError: an input is missing or wrong, an earlier run is in the way, or the source
            broke off. Finished frames are kept.
    """
    from stremn.media.live import as_it_happens
    from stremn.media.video import open_frames
    from stremn.segmentation.pipeline import read_when_wanted, segment_video

    session = opened_session(None, model, asked)
    settings: dict[str, str | float] = {"input": Path(source).name, "model": model.source}
    settings |= {**asked.settings(), "live": True}
    settings |= {"names": output.names} if output.names else {}
    frames, newest = as_it_happens(open_frames(source))
    with frames:
        masks = given.masks_for(frames, model, asked)
        if masks.frames != (0,):
            raise StremnError(
                "--live takes objects in the first frame only, got some for frame "
                f"{masks.frames[-1]}: which frames will be dropped is not known in advance."
            )
        check_formats(output, frames, masks)
        with (
            _screen(port) as screen,
            output.writer(frames, settings) as writer,
            live_progress(frames.label) as progress,
            _ending(newest),
        ):

            def show(frame: Frame, result: StepResult) -> None:
                words = progress(frame.index + 1, newest.dropped, result.memory.nbytes)
                screen.show(lambda: output.style.draw(frame.image, result.labels), words)
                if screen.closed or frame.index + 1 == limit:
                    newest.end()

            shown = _Shown(session, show)
            try:
                summary = segment_video(frames, shown, masks, writer, reading=read_when_wanted)
            except StremnError:
                if writer.written:
                    say(f"{writer.written} frames are in {output.out}.")
                raise
    say(
        f"{summary.frames} frames at {summary.frames_per_second:.1f} frames/s, {newest.dropped} "
        f"dropped; memory {megabytes(summary.memory_bytes)}, constant."
    )
    tell_files(writer)


class _Shown(SessionPass):
    """A pass that shows each result at once."""

    def __init__(self, session: Session, show: Callable[[Frame, StepResult], None]) -> None:
        super().__init__(session)
        self._show = show

    def step(self, frame: Frame, given: LabelMap | Correction | None) -> StepResult:
        """Segment and show the next frame."""
        result = super().step(frame, given)
        self._show(frame, result)
        return result


@contextmanager
def _screen(port: int) -> Iterator[Screen]:
    """Open a window, or a page where there is no display, and print which."""
    from stremn.cli.live_window import LiveWindow, NoWindowError
    from stremn.web.live_page import LivePage

    try:
        window = LiveWindow()
    except NoWindowError:
        window = None
    if window is not None:
        say("Escape, Q or Ctrl-C ends the run.")
        with window:
            yield window
        return
    with LivePage(port) as page:
        say(f"Open {page.address} in a browser on this computer. Ctrl-C ends the run.")
        yield page


@contextmanager
def _ending(newest: Newest) -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP end the source after this frame; a second one stops at once.

    The run is finished then as if the source had ended by itself.
    """
    asked = False

    def ask(number: int) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        newest.end()
        say("Ending after this frame. Press Ctrl-C again to stop at once.")

    with stop_requests(ask):
        yield
