"""A web page that follows objects through a video: upload, point, run, watch, download.

`Drawing` is what a user has said about the first frame, `follow` runs a video; neither knows of
the page. `build_page` puts them into a gradio page, `serve` shows it.
"""

import logging
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from jaxtyping import Bool

from stremn.errors import MissingExtraError, StremnError
from stremn.media.frames import Picture
from stremn.media.masks import LabelMap, Labels, label_map, overlay, read_mask
from stremn.media.prompts import Box, Point, box_mask, clicks_mask
from stremn.media.video import open_frames

if TYPE_CHECKING:
    import gradio

    from stremn.model import STReMN

logger = logging.getLogger(__name__)


POLICIES = ("evidence", "learned", "oldest", "random-select", "spread", "most-similar")
_MARK_SHARE = 120  # a mark's radius is this part of the frame's longer side
_CACHE_SECONDS = (3600, 24 * 3600)  # how often, and after what age, uploads are removed


class Tool(StrEnum):
    """What a click on the first frame means."""

    BOX = "Corner of a box"
    ON = "On the object"
    OFF = "Not the object"


@dataclass(frozen=True)
class Drawing:
    """What a user has said about the first frame so far; every change makes a new one.

    Attributes:
        frame: the first frame.
        labels: the objects that are done, "height width".
        marks: (tool, point) of the object at hand, in the order of the clicks.
    """

    frame: Picture
    labels: Labels
    marks: tuple[tuple[Tool, Point], ...] = field(default=())

    @classmethod
    def on(cls, frame: Picture) -> "Drawing":
        """Nothing said yet."""
        return cls(frame, np.zeros(frame.shape[:2], dtype=np.uint16))

    def clicked(self, tool: Tool, point: Point) -> "Drawing":
        """With one more click."""
        return replace(self, marks=(*self.marks, (tool, point)))

    def undone(self) -> "Drawing":
        """Without the last click; with none left, without the last object."""
        if self.marks:
            return replace(self, marks=self.marks[:-1])
        last = int(self.labels.max(initial=0))
        return replace(self, labels=np.where(self.labels == last, 0, self.labels))

    def next_object(self) -> "Drawing":
        """The object at hand is done; the next click begins another.

        Raises:
            StremnError: nothing has been marked since the last object.
        """
        if self.current is None:
            raise StremnError("Mark an object first: two corners of a box, or points on it.")
        return Drawing(self.frame, self.all_labels)

    def with_mask(self, mask: LabelMap) -> "Drawing":
        """With the objects of a mask file instead of what was drawn."""
        return Drawing(self.frame, mask.labels.astype(np.uint16))

    def _points(self, tool: Tool) -> list[Point]:
        return [point for kind, point in self.marks if kind is tool]

    @cached_property
    def box(self) -> Box | None:
        """The box between the last two corners, if there are two."""
        corners = self._points(Tool.BOX)
        if len(corners) < 2:
            return None
        (x0, y0), (x1, y1) = corners[len(corners) // 2 * 2 - 2 : len(corners) // 2 * 2]
        return Box(min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0))

    @cached_property
    def current(self) -> Bool[np.ndarray, "height width"] | None:
        """Where the object at hand is; None while too little is said.

        Raises:
            StremnError: what was marked does not lead to an object.
        """
        positive, negative = self._points(Tool.ON), self._points(Tool.OFF)
        if positive:
            return clicks_mask(self.frame, positive, negative, within=self.box)
        return None if self.box is None else box_mask(self.frame, self.box)

    @cached_property
    def all_labels(self) -> Labels:
        """The objects that are done and the one at hand; that one lies on top."""
        if self.current is None:
            return self.labels
        number = int(self.labels.max(initial=0)) + 1
        return np.where(self.current, number, self.labels).astype(np.uint16)

    def mask(self) -> LabelMap:
        """All objects, to start from.

        Raises:
            StremnError: there is none.
        """
        found = label_map(self.all_labels)
        if not found.ids:
            raise StremnError(
                "Say what to follow first: two corners of a box around it, points on it, or a mask."
            )
        return found

    def picture(self) -> Picture:
        """The first frame with objects and marks drawn in."""
        drawn = overlay(self.frame, self.all_labels)
        radius = max(3, max(self.frame.shape) // _MARK_SHARE)
        for tool, (x, y) in self.marks:
            color = {Tool.BOX: (255, 210, 0), Tool.ON: (40, 220, 90), Tool.OFF: (240, 50, 50)}[tool]
            place = (int(x), int(y))
            cv2.circle(drawn, place, radius + 2, (255, 255, 255), cv2.FILLED, cv2.LINE_AA)
            cv2.circle(drawn, place, radius, color, cv2.FILLED, cv2.LINE_AA)
        if self.box is not None:
            x, y, w, h = (round(side) for side in self.box)
            cv2.rectangle(drawn, (x, y), (x + w, y + h), (255, 210, 0), max(1, radius // 3))
        return drawn


def first_frame(video: str) -> Picture:
    """The first frame of a video; raises StremnError if it cannot be read."""
    with open_frames(Path(video)) as frames:
        return next(iter(frames)).image


# ---------------------------------------------------------------- running a video


@dataclass(frozen=True)
class Options:
    """How to follow: K slots, rule, working size (shorter side), frames at most (0: all)."""

    slots: int = 6
    policy: str = "evidence"
    size: int = 432
    limit: int = 0


@dataclass(frozen=True)
class Followed:
    """The files of a run and a summary in words."""

    overlay: Path
    strip: Path
    masks: Path
    summary: str


class StoppedError(StremnError):
    """The user stopped the run."""


def follow(
    video: str,
    mask: LabelMap,
    model: "STReMN",
    out: Path,
    options: Options,
    *,
    device: str = "auto",
    watch: Callable[[int, int | None], None],
) -> Followed:
    """Follow the objects of a mask of the first frame through a video.

    Args:
        video: path of the video.
        mask: the objects in its first frame.
        model: the network.
        out: folder for the results; made anew.
        options: how to follow.
        device: where to compute.
        watch: told (frames done, frames in all or None); raises StoppedError to end the run, of
            which the frames so far are kept.

    Raises:
        StremnError: the video breaks before its second frame, or a setting is impossible.
    """
    from stremn.media.results import ResultWriter
    from stremn.pipeline import STRIP, segment_video
    from stremn.sessions import SHIPPED_REACH, SegmentationSession

    session = SegmentationSession(
        model,
        device=device,
        memory_slots=options.slots,
        policy=options.policy,
        size=options.size,
        reach=SHIPPED_REACH,
    )
    note = ""
    with open_frames(Path(video)) as frames:
        total = min(options.limit or frames.count or 0, frames.count or options.limit) or None
        writer = ResultWriter(out, fps=frames.fps, existing="replace")
        try:
            summary = segment_video(
                frames,
                session,
                lambda frame: mask if frame.index == 0 else None,
                writer,
                limit=options.limit or None,
                watch=lambda done, result: watch(done, total),
            )
            speed = f"{summary.frames_per_second:.1f} frames/s"
        except StremnError as error:
            if writer.written < 2:
                raise
            note = "Stopped early. " if isinstance(error, StoppedError) else f"**{error}** "
            speed = "until then"
    megabytes = session.memory_bytes / 1e6
    objects = "1 object" if len(mask.ids) == 1 else f"{len(mask.ids)} objects"
    text = (
        f"{note}{writer.written} frames, {objects}, {speed}. The memory took "
        f"{megabytes:.1f} MB from the first frame to the last."
    )
    return Followed(out / "overlay.mp4", out / STRIP, _zip_masks(out), text)


def _zip_masks(out: Path) -> Path:
    """All masks and the record of the memory in one file."""
    path = out / "masks.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for mask in sorted((out / "masks").glob("*.png")):
            archive.write(mask, f"masks/{mask.name}")
        archive.write(out / "memory.json", "memory.json")
    return path


# ---------------------------------------------------------------- the page


class Runs:
    """Folders of the runs, one a visitor, and the visitors' wish to stop."""

    def __init__(self) -> None:
        self._root = tempfile.TemporaryDirectory(prefix="stremn-web-")
        self._stops: dict[str, threading.Event] = {}

    def begin(self, visitor: str) -> tuple[Path, threading.Event]:
        """An empty folder for a visitor's new run, and the event that ends it."""
        folder = Path(self._root.name) / visitor
        shutil.rmtree(folder, ignore_errors=True)
        self._stops[visitor] = threading.Event()
        return folder, self._stops[visitor]

    def stop(self, visitor: str) -> None:
        """End a visitor's run after the frame at hand."""
        if visitor in self._stops:
            self._stops[visitor].set()

    def keep_copy(self, path: Path) -> Path:
        """A copy of a file where the page may serve it from."""
        copy = Path(self._root.name) / path.name
        if not copy.exists():
            shutil.copy(path, copy)
        return copy

    def close(self) -> None:
        """Remove all folders."""
        self._root.cleanup()


_CSS = """
.gradio-container {max-width: 1280px !important; margin: auto !important}
#heading h1 {margin-bottom: 0.1em}
#heading p {color: var(--body-text-color-subdued); margin-top: 0}
#drawing img {cursor: crosshair}
"""

_HEADING = """
# stremn
Follow objects through a video of any length, with a memory that never grows.
"""

_HELP = """
In the first frame, click two corners of a box around an object, or points on it (and beside it, if
too much is found).
**Next object** begins another one.
"""


def build_page(model: str = "small", device: str = "auto") -> "gradio.Blocks":
    """The page, ready to be launched.

    Args:
        model: preset, weights file, folder or hub id; loaded with the first run.
        device: where to compute.

    Raises:
        MissingExtraError: gradio is not installed.
    """
    gradio = _gradio()
    page = _Page(gradio, model, device)
    return page.blocks


def serve(
    *, model: str = "small", device: str = "auto", host: str = "127.0.0.1", port: int = 7860
) -> None:
    """Show the page until it is interrupted.

    Raises:
        MissingExtraError: gradio is not installed.
        StremnError: the port is taken.
    """
    gradio = _gradio()
    blocks = build_page(model, device)
    try:
        blocks.launch(server_name=host, server_port=port, **page_style(gradio))
    except OSError as error:
        raise StremnError(
            f"The page cannot be served on {host}:{port}: {error}. Choose another --port."
        ) from error


def page_style(gradio: Any) -> dict[str, Any]:
    """How the page looks; fonts are the system's, so that it works without a network."""
    theme = gradio.themes.Soft(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"]
    )
    return {"theme": theme, "css": _CSS, "footer_links": []}


def _gradio() -> Any:
    try:
        import gradio
    except ImportError as error:
        raise MissingExtraError("gradio", "web") from error
    return gradio


class _Page:
    """Widgets and what they do."""

    def __init__(self, gradio: Any, model: str, device: str) -> None:
        self._gr = gradio
        self._source = model
        self._device = device
        self._runs = Runs()
        self._lock = threading.Lock()
        self.blocks = gradio.Blocks(
            title="stremn", analytics_enabled=False, delete_cache=_CACHE_SECONDS
        )
        with self.blocks:
            self._lay_out()
            self._connect()

    @cached_property
    def _model(self) -> "STReMN":
        from stremn.pretrained import load_model

        return load_model(self._source).model

    # ------------------------------------------------------------ widgets

    def _lay_out(self) -> None:
        gr = self._gr
        gr.Markdown(_HEADING, elem_id="heading")
        self._drawing = gr.State(None)
        with gr.Row():
            with gr.Column():
                self._lay_out_input()
            with gr.Column():
                self._overlay = gr.Video(
                    label="Objects", interactive=False, autoplay=True, loop=True, elem_id="overlay"
                )
                self._summary = gr.Markdown(elem_id="summary")
                gr.Markdown("Frames that the memory held at the end:")
                self._strip = gr.Image(
                    show_label=False, interactive=False, buttons=["fullscreen"], elem_id="strip"
                )
                self._masks = gr.File(label="Masks and memory.json", elem_id="masks")

    def _lay_out_input(self) -> None:
        gr = self._gr
        self._video = gr.Video(label="Video", sources=["upload"], elem_id="video")
        self._demo = gr.Button("Use the demo clip", size="sm", elem_id="demo")
        gr.Markdown(_HELP)
        # No label and no buttons: they would lie over a part that may have to be clicked.
        self._picture = gr.Image(show_label=False, interactive=False, buttons=[], elem_id="drawing")
        self._tool = gr.Radio(
            [tool.value for tool in Tool], value=Tool.BOX.value, label="A click means"
        )
        with gr.Row():
            self._undo = gr.Button("Undo", size="sm", elem_id="undo")
            self._clear = gr.Button("Clear", size="sm", elem_id="clear")
            self._next = gr.Button("Next object", size="sm", elem_id="next")
        with gr.Accordion("Use a mask file instead", open=False):
            self._mask = gr.File(
                label="Mask of the first frame (PNG)", file_types=["image"], elem_id="mask"
            )
        with gr.Accordion("Settings", open=False):
            self._slots = gr.Slider(1, 32, 6, step=1, label="Memory slots for each object")
            self._policy = gr.Dropdown(
                list(POLICIES), value="evidence", label="Rule that says which slot gives way"
            )
            self._size = gr.Slider(
                128, 720, 432, step=16, label="Working size (shorter side, pixels)"
            )
            self._limit = gr.Number(0, precision=0, minimum=0, label="Stop after frames (0: all)")
        with gr.Row():
            self._run = gr.Button("Follow", variant="primary", elem_id="run")
            self._stop = gr.Button("Stop", elem_id="stop")

    # ------------------------------------------------------------ what they do

    def _connect(self) -> None:
        import gradio as gr

        drawn = [self._drawing, self._picture]

        def click(drawing: Drawing | None, tool: str, event: gr.SelectData) -> tuple[Any, Any]:
            x, y = event.index
            return self._shown(self._begun(drawing).clicked(Tool(tool), (x, y)))

        self._video.change(self._open, [self._video], drawn, api_name="open")
        self._demo.click(self._demo_video, None, [self._video], api_name="demo")
        self._picture.select(
            click, [self._drawing, self._tool], drawn, show_progress="minimal", api_name=False
        )
        for button, change in (
            (self._undo, Drawing.undone),
            (self._next, Drawing.next_object),
            (self._clear, lambda drawing: Drawing.on(drawing.frame)),
        ):
            button.click(self._changing(change), [self._drawing], drawn, api_name=False)
        self._mask.upload(self._use_mask, [self._drawing, self._mask], drawn, api_name="mask")
        settings = [self._slots, self._policy, self._size, self._limit]
        results = [self._overlay, self._strip, self._masks, self._summary]
        self._connect_run([self._video, self._drawing, *settings], results)

    def _connect_run(self, inputs: list[Any], results: list[Any]) -> None:
        import gradio as gr

        bar = gr.Progress()

        def run(
            video: str | None,
            drawing: Drawing | None,
            slots: float,
            policy: str,
            size: float,
            limit: float,
            request: gr.Request,
            progress: gr.Progress = bar,
        ) -> tuple[str, str, str, str]:
            options = Options(int(slots), policy, int(size), int(limit or 0))
            visitor = str(request.session_hash)

            def watch(done: int, total: int | None) -> None:
                progress((done, total), desc="Following", unit="frames")

            found = self._follow(video, drawing, options, visitor, watch)
            return str(found.overlay), str(found.strip), str(found.masks), found.summary

        def stop(request: gr.Request) -> None:
            self._runs.stop(str(request.session_hash))

        self._run.click(run, inputs, results, concurrency_limit=1, api_name="follow")
        self._stop.click(stop, None, None, queue=False, api_name=False)

    def _follow(
        self,
        video: str | None,
        drawing: Drawing | None,
        options: Options,
        visitor: str,
        progress: Callable[[int, int | None], None],
    ) -> Followed:
        folder, stop = self._runs.begin(visitor)

        def watch(done: int, total: int | None) -> None:
            progress(done, total)
            if stop.is_set():
                raise StoppedError("Stopped.")

        with self._told():
            begun = self._begun(drawing)
            if video is None:
                raise StremnError("Upload a video first, or use the demo clip.")
            with self._lock:
                return follow(
                    video, begun.mask(), self._model, folder, options,
                    device=self._device, watch=watch,
                )  # fmt: skip

    def _open(self, video: str | None) -> tuple[Drawing | None, Picture | None]:
        if video is None:
            return None, None
        with self._told():
            return self._shown(Drawing.on(first_frame(video)))

    def _demo_video(self) -> str:
        from stremn.media.demo import demo_clip

        with self._told():
            return str(self._runs.keep_copy(demo_clip()))

    def _use_mask(self, drawing: Drawing | None, mask: str) -> tuple[Drawing, Picture]:
        with self._told():
            begun = self._begun(drawing)
            size = (begun.frame.shape[0], begun.frame.shape[1])
            return self._shown(begun.with_mask(read_mask(mask, size)))

    def _changing(
        self, change: Callable[[Drawing], Drawing]
    ) -> Callable[[Drawing | None], tuple[Drawing, Picture]]:
        def changed(drawing: Drawing | None) -> tuple[Drawing, Picture]:
            with self._told():
                return self._shown(change(self._begun(drawing)))

        return changed

    def _begun(self, drawing: Drawing | None) -> Drawing:
        if drawing is None:
            raise self._gr.Error("Upload a video first, or use the demo clip.", duration=8)
        return drawing

    def _shown(self, drawing: Drawing) -> tuple[Drawing, Picture]:
        with self._told():
            return drawing, drawing.picture()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Show a user's mistake on the page, in its own words."""
        try:
            yield
        except StremnError as error:
            raise self._gr.Error(str(error), duration=12, print_exception=False) from error
