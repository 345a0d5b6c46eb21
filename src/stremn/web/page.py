"""The page: drawings and runs put into gradio.

`build_page` makes it, `serve` shows it.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stremn.errors import MissingExtraError, StremnError
from stremn.media.frames import Picture
from stremn.media.masks import read_mask
from stremn.web.drawing import Drawing, Tool
from stremn.web.runs import Followed, Options, Runs, StoppedError, first_frame, follow

if TYPE_CHECKING:
    import gradio

    from stremn.model import STReMN

logger = logging.getLogger(__name__)

POLICIES = ("evidence", "learned", "oldest", "random-select", "spread", "most-similar")
_CACHE_SECONDS = (3600, 24 * 3600)  # how often, and after what age, uploads are removed

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
