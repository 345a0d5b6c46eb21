"""The tab that predicts a video's next frames, and shows them beside the true ones."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from stremn.errors import StremnError
from stremn.prediction.weights import SHIPPED
from stremn.web.stops import StoppedError, Stops

if TYPE_CHECKING:
    from stremn.prediction.files import PredictionFiles, Watcher

MOST_FRAMES = 200
"""Predicted frames that a visitor may ask for."""

_OBSERVED = 10
"""Frames that are observed unless a visitor asks for another number."""

_HELP = """
Open a video and choose how many of its frames are observed. The predicted frames are shown beside
the true ones. At most {most} frames are observed. `natural` takes any video; later frames are less
accurate. `digits` is for the paper's moving digits only.
"""

_VIDEO = "Left: the video. Right: the observed frames, then the prediction"

_STRIP = "Rows: observed frames, true frames, predicted frames"


class PredictTab:
    """The tab's widgets.

    Args:
        root: folder for the results.
        device: where to compute.
        most: frames of a video that are observed, at most.
        told: shows a user's mistake on the page.
    """

    def __init__(
        self, root: Path, device: str, most: int, told: Callable[[], AbstractContextManager[None]]
    ) -> None:
        import gradio as gr

        self._root = root
        self._device = device
        self._most = most
        self._told = told
        self._stops = Stops()
        gr.Markdown(_HELP.format(most=most), elem_id="predict-help")
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                video = gr.File(
                    label="Video", file_types=["video", ".gif", ".webp"], height=120,
                    elem_id="predict-video",
                )  # fmt: skip
                observe = gr.Number(
                    min(_OBSERVED, most), precision=0, minimum=0,
                    label=f"Observed frames (0: all, at most {most})", elem_id="observe",
                )  # fmt: skip
                frames = gr.Number(
                    10, precision=0, minimum=1, maximum=MOST_FRAMES, label="Frames to predict"
                )
                weights = gr.Dropdown(list(SHIPPED), value=next(iter(SHIPPED)), label="Weights")
                button = gr.Button("Predict", variant="primary", elem_id="predict")
                stop = gr.Button("Stop", elem_id="stop-prediction")
            with gr.Column(scale=2, min_width=320):
                gr.Markdown(_VIDEO)
                both = gr.Video(
                    show_label=False, interactive=False, autoplay=True, loop=True, elem_id="beside"
                )
                gr.Markdown(_STRIP)
                strip = gr.Image(
                    show_label=False, interactive=False, buttons=["download", "fullscreen"],
                    elem_id="rows",
                )  # fmt: skip
                note = gr.Markdown(elem_id="predict-note")

        def predict(  # gradio looks for the types of `visitor` and `progress`
            video: str | None,
            observe: float | None,
            frames: float | None,
            weights: str,
            visitor: gr.Request,
            progress: gr.Progress = gr.Progress(),  # noqa: B008
        ) -> tuple[Any, Any, Any]:
            with self._told(), self._stops.running(str(visitor.session_hash)) as stop_if_asked:

                def watch(what: str, done: int, total: int | None) -> None:
                    progress((done, total), desc=f"Frames {what}", unit="frames")
                    stop_if_asked()

                try:
                    return self._predict(video, observe, frames, weights, watch)
                except StoppedError as told:
                    gr.Info(str(told))
                    return gr.skip(), gr.skip(), gr.skip()

        def stop_prediction(visitor: gr.Request) -> None:
            self.stop(str(visitor.session_hash))

        button.click(
            predict,
            [video, observe, frames, weights],
            [both, strip, note],
            concurrency_limit=1,
            api_name="predict",
        )
        stop.click(stop_prediction, queue=False, api_visibility="private")

    def _predict(
        self,
        video: str | None,
        observe: float | None,
        frames: float | None,
        weights: str,
        watch: "Watcher",
    ) -> tuple[str, Any, str]:
        from stremn.media.video import read_image
        from stremn.prediction.files import predict_video

        if video is None:
            raise StremnError("Open a video first.")
        if weights not in SHIPPED:
            raise StremnError("Choose one of the weights that the page offers.")
        wanted = int(frames or 0)
        if not 1 <= wanted <= MOST_FRAMES:
            raise StremnError(f"From 1 to {MOST_FRAMES} frames can be predicted here.")
        observed, cut = self._observed(Path(video), int(observe or 0))
        out = Path(mkdtemp(prefix="prediction-", dir=self._root))
        try:
            files = predict_video(
                Path(video), out, frames=wanted, observe=observed,
                weights=weights, device=self._device, watch=watch,
            )  # fmt: skip
            strip = read_image(files.strip)
            kept = self._root / "prediction.mp4"  # gradio takes a copy for each visitor
            files.video.replace(kept)
        finally:
            shutil.rmtree(out, ignore_errors=True)
        return str(kept), strip, "\n\n".join([files.note, *cut, *_measured(files)])

    def stop(self, visitor: str) -> None:
        """Stop a visitor's prediction, if one is running."""
        self._stops.stop(visitor)

    def _observed(self, video: Path, asked: int) -> tuple[int | None, list[str]]:
        """Return how many frames to observe (None: all), and what to say if those are not all.

        Args:
            video: its file.
            asked: frames that the visitor wants to have observed; 0: all.

        Raises:
            StremnError: more than the page allows, or all of a file that is no video.
        """
        if asked > self._most:
            raise StremnError(
                f"At most {self._most} frames can be observed here, got {asked}. Ask for fewer, or "
                "start the page with a larger --max-frames."
            )
        if asked or not _has_more_frames(video, self._most):
            return asked or None, []
        return self._most, [
            f"The video is longer than the {self._most} frames that are observed here. To observe "
            "more, start the page with a larger --max-frames."
        ]


def _has_more_frames(video: Path, most: int) -> bool:
    """Return whether a video has more frames than `most`; raises StremnError if it is none.

    What the header of the file says is not relied on.
    """
    from stremn.media.video import open_frames

    with open_frames(video) as frames:
        if frames.recording is not None:
            return frames.recording.count() > most
        return next(islice(frames, most, None), None) is not None


def _measured(files: "PredictionFiles") -> list[str]:
    """Return the known errors of a prediction, one paragraph each."""
    known = [
        ("Tried on the last frames observed", files.tried),
        ("Against the true frames", files.errors),
    ]
    return [f"{what}: {errors}" for what, errors in known if errors is not None]
