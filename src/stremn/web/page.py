"""The page: drawings and runs put into gradio.

`build_page` makes it, `serve` shows it.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from stremn.errors import MissingExtraError, StremnError
from stremn.media.frames import Picture
from stremn.media.masks import read_mask
from stremn.web.drawing import Drawing, Tool
from stremn.web.guard import Guard, is_loopback, new_token
from stremn.web.runs import LIMITS, Followed, Limits, Options, Runs, StoppedError, follow, frame_of

if TYPE_CHECKING:
    import gradio

    from stremn.media.finding import MaskFinder
    from stremn.networks.pretrained import Pretrained

logger = logging.getLogger(__name__)

POLICIES = ("evidence", "learned", "oldest", "random-select", "spread", "most-similar")
_Shown = tuple[Drawing | None, Picture | None, str]
"""What is drawn, its picture, and words under it."""

_MOST_FRAMES = 10**7
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

_VIDEO = "### 1. Choose a video"

_MARK = """
### 2. Mark an object
Click two corners of a box around it, or points on it; blue is what was found. If that is too much,
choose **Not the object** and click where it is too much. **Next object** begins another one.
"""

_RESULT = "### 3. Press Follow, and look at the result here"


def build_page(
    model: str = "small", device: str = "auto", limits: Limits = LIMITS
) -> "gradio.Blocks":
    """The page, ready for `launch`.

    Args:
        model: preset, weights file, folder or hub id; loaded with the first run.
        device: where to compute.
        limits: what visitors may ask for.

    Raises:
        MissingExtraError: gradio is not installed.
    """
    gradio = _gradio()
    page = _Page(gradio, model, device, limits)
    return page.blocks.queue(max_size=limits.waiting)


def serve(
    *,
    model: str = "small",
    device: str = "auto",
    host: str = "127.0.0.1",
    port: int = 7860,
    limits: Limits = LIMITS,
    announce: Callable[[str], None],
) -> None:
    """Show the page until it is interrupted; `announce` is told its address once it is there.

    Where other computers can reach it, the address holds a token, and nobody is served without.

    Raises:
        MissingExtraError: gradio is not installed.
        StremnError: no such port, or the port is taken.
    """
    if not 0 <= port <= 65_535:
        raise StremnError(f"--port must be from 0 to 65535, got {port}. 7860 is usual.")
    gradio = _gradio()
    blocks = build_page(model, device, limits)
    try:
        address = launch(blocks, host, port, limits, page_style(gradio))
    except OSError as error:
        raise StremnError(
            f"The page cannot be served on {host}:{port}: the port is taken, or the address is not "
            "this computer's. Choose another --port or --host."
        ) from error
    announce(address)
    blocks.block_thread()


def launch(
    blocks: "gradio.Blocks",
    host: str,
    port: int | None,
    limits: Limits = LIMITS,
    style: Mapping[str, Any] | None = None,
) -> str:
    """Start a page's server behind its `Guard` and return the address to open.

    Raises:
        OSError: the port is taken.
    """
    from starlette.middleware import Middleware

    token = None if is_loopback(host) else new_token()
    guard = Middleware(Guard, token=token, largest=limits.upload)
    _, address, _ = blocks.launch(
        server_name=host,
        server_port=port or None,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        max_file_size=limits.upload,
        app_kwargs={"middleware": [guard]},
        **(style or {}),
    )
    return address if token is None else f"{address}?token={token}"


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

    def __init__(self, gradio: Any, model: str, device: str, limits: Limits) -> None:
        self._gr = gradio
        self._limits = limits
        self._source = model
        self._device = device
        self._folder = TemporaryDirectory(prefix="stremn-web-")  # removed when the server ends
        self._runs = Runs(Path(self._folder.name), limits.visitors)
        self._lock = threading.Lock()
        self.blocks = gradio.Blocks(
            title="stremn", analytics_enabled=False, delete_cache=_CACHE_SECONDS
        )
        with self.blocks:
            self._lay_out()
            self._connect()

    @cached_property
    def _find(self) -> "MaskFinder":
        from stremn.prompting.masks import mask_finder

        return mask_finder(device=self._device)

    @cached_property
    def _pretrained(self) -> "Pretrained":
        from stremn.networks.pretrained import load_model

        return load_model(self._source)

    # ------------------------------------------------------------ widgets

    def _lay_out(self) -> None:
        gr = self._gr
        gr.Markdown(_HEADING, elem_id="heading")
        self._drawing = gr.State(None)
        with gr.Row():
            with gr.Column():
                self._lay_out_input()
            with gr.Column():
                gr.Markdown(_RESULT)
                self._overlay = gr.Video(
                    label="Objects", interactive=False, autoplay=True, loop=True, elem_id="overlay"
                )
                self._summary = gr.Markdown(elem_id="summary")
                self._frame = gr.Slider(
                    0,
                    _MOST_FRAMES,  # until it is known how many there are
                    0,
                    step=1,
                    visible=False,
                    elem_id="frame",
                    label="Did it go wrong? Move to a frame, and correct it in step 2",
                )
                gr.Markdown("Frames that the memory held at the end:")
                self._strip = gr.Image(
                    show_label=False, interactive=False, buttons=["fullscreen"], elem_id="strip"
                )
                self._masks = gr.File(label="Masks and memory.json", elem_id="masks")

    def _lay_out_input(self) -> None:
        from stremn.networks.pretrained import config_of

        gr = self._gr
        gr.Markdown(_VIDEO)
        self._video = gr.Video(label="Video", sources=["upload"], elem_id="video")
        self._demo = gr.Button("Use the demo clip", size="sm", elem_id="demo")
        gr.Markdown(_MARK)
        # No label and no buttons: they would lie over a part that may have to be clicked.
        self._picture = gr.Image(show_label=False, interactive=False, buttons=[], elem_id="drawing")
        self._words = gr.Markdown(elem_id="words")
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
                128,
                720,
                config_of(self._source).usual.size,
                step=16,
                label="Working size (shorter side, pixels)",
            )
            self._limit = gr.Number(0, precision=0, minimum=0, label="Stop after frames (0: all)")
            self._adapt = gr.Checkbox(
                False,
                label="Adapt the network to the objects first: better masks, some minutes more",
                elem_id="adapt",
            )
        with gr.Row():
            self._run = gr.Button("Follow", variant="primary", elem_id="run")
            self._stop = gr.Button("Stop", elem_id="stop")

    # ------------------------------------------------------------ what they do

    def _connect(self) -> None:
        import gradio as gr

        drawn = [self._drawing, self._picture, self._words]

        def click(drawing: Drawing | None, tool: str, event: gr.SelectData) -> _Shown:
            x, y = event.index
            return self._changed(drawing, lambda begun: begun.clicked(Tool(tool), (x, y)))

        self._demo.click(self._demo_video, None, [self._video], api_name="demo")
        self._picture.select(
            click, [self._drawing, self._tool], drawn, show_progress="minimal", api_name=False
        )
        for button, change in (
            (self._undo, Drawing.undone),
            (self._next, Drawing.next_object),
            (self._clear, Drawing.cleared),
        ):
            button.click(self._changing(change), [self._drawing], drawn, api_name=False)
        self._mask.upload(self._use_mask, [self._drawing, self._mask], drawn, api_name="mask")
        settings = [self._slots, self._policy, self._size, self._limit, self._adapt]
        results = [self._overlay, self._strip, self._masks, self._summary]
        self._video.change(
            self._open, [self._video], [*drawn, *results, self._frame], api_name="open"
        )
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
            adapt: bool,
            request: gr.Request,
            progress: gr.Progress = bar,
        ) -> tuple[str, str, str, str]:
            most = self._limits.frames
            frames = min(int(limit), most) if limit else most
            options = Options(int(slots), policy, int(size), frames, adapt)
            visitor = str(request.session_hash)

            def watch(doing: str, done: int, total: int | None) -> None:
                unit = "frames" if doing == "following" else "steps"
                progress((done, total), desc=doing.capitalize(), unit=unit)

            progress(0, desc="Loading the model")
            found = self._follow(video, drawing, options, visitor, watch)
            return str(found.overlay), str(found.strip), str(found.masks), found.summary

        def followed(request: gr.Request) -> Any:
            count = self._runs.followed(str(request.session_hash))
            return gr.Slider(maximum=max(1, count - 1), visible=count > 1)

        def correct(
            video: str | None, drawing: Drawing | None, index: float, request: gr.Request
        ) -> _Shown:
            return self._correct(video, drawing, int(index), str(request.session_hash))

        def stop(request: gr.Request) -> None:
            self._runs.stop(str(request.session_hash))

        self._run.click(
            run,
            inputs,
            results,
            concurrency_limit=1,
            api_name="follow",
            show_progress_on=self._overlay,
        ).success(followed, None, self._frame, show_progress="hidden", api_name=False)
        self._frame.release(
            correct,
            [self._video, self._drawing, self._frame],
            [self._drawing, self._picture, self._words],
            show_progress_on=self._picture,
            api_name="correct",
        )
        self._stop.click(stop, None, None, queue=False, api_name=False)

        def leave(request: gr.Request) -> None:
            self._runs.leave(str(request.session_hash))

        self.blocks.unload(leave)

    def _follow(
        self,
        video: str | None,
        drawing: Drawing | None,
        options: Options,
        visitor: str,
        progress: Callable[[str, int, int | None], None],
    ) -> Followed:
        folder, visit = self._runs.begin(visitor, video)

        def watch(doing: str, done: int, total: int | None) -> None:
            progress(doing, done, total)
            if visit.stop.is_set():
                raise StoppedError("Stopped.")

        with self._told():
            begun = self._begun(drawing)
            if video is None:
                raise StremnError("Upload a video first, or use the demo clip.")
            with self._lock:
                return follow(
                    video, begun.masks(), self._pretrained, folder, options,
                    device=self._device, watch=watch, adapted=visit.adapted,
                )  # fmt: skip

    def _open(self, video: str | None) -> tuple[Any, ...]:
        """Show a new video's first frame; nothing is left of what was found in another."""
        nothing = (None, None, None, "", self._gr.Slider(visible=False, value=0))
        if video is None:
            return None, None, "", *nothing
        with self._told():
            return *self._shown(Drawing.on(frame_of(video), self._find)), *nothing

    def _correct(
        self, video: str | None, drawing: Drawing | None, index: int, visitor: str
    ) -> _Shown:
        def opened(begun: Drawing) -> Drawing:
            found = self._runs.found(visitor, video, index)
            return begun.correcting(index, frame_of(str(video), index), found)

        return self._changed(drawing, opened)

    def _demo_video(self) -> str:
        from stremn.media.demo import demo_clip

        with self._told():
            return str(self._runs.keep_copy(demo_clip()))

    def _use_mask(self, drawing: Drawing | None, mask: str) -> _Shown:
        def with_mask(begun: Drawing) -> Drawing:
            size = (begun.frame.shape[0], begun.frame.shape[1])
            return begun.with_mask(read_mask(mask, size))

        return self._changed(drawing, with_mask)

    def _changing(self, change: Callable[[Drawing], Drawing]) -> Callable[[Drawing | None], _Shown]:
        return lambda drawing: self._changed(drawing, change)

    def _changed(self, drawing: Drawing | None, change: Callable[[Drawing], Drawing]) -> _Shown:
        with self._told():
            return self._shown(change(self._begun(drawing)))

    @staticmethod
    def _begun(drawing: Drawing | None) -> Drawing:
        if drawing is None:
            raise StremnError("Upload a video first, or use the demo clip.")
        return drawing

    @staticmethod
    def _shown(drawing: Drawing) -> _Shown:
        return drawing, drawing.picture(), drawing.words()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Show a user's mistake on the page, in its own words."""
        try:
            yield
        except StremnError as error:
            words = escape(str(error), quote=False)  # gradio takes them as HTML
            raise self._gr.Error(words, duration=12, print_exception=False) from error
