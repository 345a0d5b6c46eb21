"""The page: the workbench and the other tabs, in gradio.

`build_page` makes it, `serving.serve` shows it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from stremn.errors import MissingExtraError, StremnError
from stremn.web.downloads import FORMATS
from stremn.web.options import offered
from stremn.web.predict_tab import PredictTab
from stremn.web.project import Tools
from stremn.web.projects import LIMITS, Limits, Projects
from stremn.web.workbench import STATIC

if TYPE_CHECKING:
    import gradio

    from stremn.media.finding import MaskFinder
    from stremn.segmentation.opening import VideoModel

_CACHE_SECONDS = (3600, 24 * 3600)  # how often, and after what age, uploads are removed

_HEADING = """
# stremn
Follow objects through a video of any length, with a memory that never grows.
"""

_HELP = """
Open a video, drag a box around an object (or click on it), and press **Follow**. If a mask is
wrong, go to that frame, correct it and press **Continue**. The video stays on this server.
"""

_START = """
import(new URL("workbench/static/main.js", document.baseURI).href).then((workbench) => {
  const root = element.querySelector(".wb");
  const bench = workbench.start(root, props.settings);
  watch("value", () => bench.open(props.value || ""));
  if (props.value) bench.open(props.value); // opened while this was loading
  else bench.reopen();
}, () => {
  const told = document.createElement("p");
  told.className = "wb-alert";
  told.role = "alert";
  told.textContent = "The workbench could not be loaded. Reload the page.";
  element.append(told);
});
"""


def gradio_module() -> Any:
    """Return gradio; raises MissingExtraError if it is not installed."""
    try:
        import gradio
    except ImportError as error:
        raise MissingExtraError("gradio", "web") from error
    return gradio


class Page:
    """The page's widgets, and the projects behind them.

    Attributes:
        blocks: what gradio serves.
        projects: the visitors' work.
    """

    def __init__(self, model: str, device: str, limits: Limits) -> None:
        self._gr = gradio_module()
        self._source = model
        self._device = device
        self._most = limits.frames
        self._folder = TemporaryDirectory(prefix="stremn-web-")  # removed when the server ends
        tools = Tools(
            find=lambda: self._find,
            model=lambda: self._model,
            turn=threading.Lock(),
            device=device,
        )
        self.projects = Projects(Path(self._folder.name), tools, limits)
        self.blocks = self._gr.Blocks(
            title="stremn", analytics_enabled=False, delete_cache=_CACHE_SECONDS
        )
        with self.blocks:
            self._lay_out()

    @cached_property
    def _find(self) -> "MaskFinder":
        from stremn.prompting.masks import mask_finder
        from stremn.segmentation.opening import Asked

        own = self._model.finder(Asked(device=self._device))
        return own or mask_finder(device=self._device)

    @cached_property
    def _model(self) -> "VideoModel":
        from stremn.sam.opening import video_model

        return video_model(self._source)

    # ------------------------------------------------------------ widgets

    def _lay_out(self) -> None:
        gr = self._gr
        gr.Markdown(_HEADING, elem_id="heading")
        with gr.Tab("Follow objects"):
            self._lay_out_workbench()
        with gr.Tab("Predict frames"):
            self._predictions = PredictTab(
                Path(self._folder.name), self._device, self._most, self._told
            )

    def _lay_out_workbench(self) -> None:
        gr = self._gr
        gr.Markdown(_HELP, elem_id="help")
        with gr.Row(elem_id="open"):
            video = gr.File(
                label="Video", file_types=["video", ".gif", ".webp", ".apng"], height=140,
                elem_id="video",
            )  # fmt: skip
            demo = gr.Button("Use the demo clip", size="sm", elem_id="demo", scale=0, min_width=170)
        bench = gr.HTML(
            "",
            html_template=(STATIC / "workbench.html").read_text(encoding="utf-8"),
            js_on_load=_START,
            apply_default_css=False,
            settings=self._settings(),
            elem_id="workbench",
        )
        self._connect(video, demo, bench)

    def _settings(self) -> dict[str, Any]:
        formats = [{"name": name, "words": words} for name, words in FORMATS.items()]
        return {**offered(self._model, self._device), "formats": formats}

    # ------------------------------------------------------------ what they do

    def _connect(self, video: Any, demo: Any, bench: Any) -> None:
        import gradio as gr  # by name: gradio looks for the type of `request`

        def opened(path: str | None, request: gr.Request) -> Any:
            if path is None:  # what was made stays until another video is opened
                return gr.skip()
            with self._told():
                return self.projects.open(str(request.session_hash), Path(path))

        def leave(request: gr.Request) -> None:
            visitor = str(request.session_hash)
            self._predictions.stop(visitor)
            self.projects.leave_later(visitor)

        video.change(opened, [video], [bench], api_name="open")
        demo.click(self._demo_clip, None, [video], api_name=False)
        self.blocks.unload(leave)

    def _demo_clip(self) -> str:
        from stremn.media.demo import demo_clip

        with self._told():
            return str(demo_clip())

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Show a StremnError on the page."""
        try:
            yield
        except StremnError as error:
            words = escape(str(error), quote=False)  # gradio takes them as HTML
            raise self._gr.Error(words, duration=12, print_exception=False) from error


def build_page(
    model: str = "small", device: str = "auto", limits: Limits = LIMITS
) -> "tuple[gradio.Blocks, Projects]":
    """Return the page, ready for `serving.launch`, and the projects of its workbench.

    Args:
        model: preset, weights file, folder or hub id; loaded with the first run.
        device: where to compute.
        limits: what visitors may ask for, of the workbench and of predictions.

    Raises:
        MissingExtraError: gradio is not installed.
    """
    page = Page(model, device, limits)
    return page.blocks.queue(max_size=limits.waiting), page.projects
