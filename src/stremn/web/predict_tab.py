"""The tab that predicts a video's next frames, and shows them beside the true ones."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from stremn.errors import StremnError
from stremn.prediction.weights import SHIPPED

if TYPE_CHECKING:
    from stremn.prediction.files import PredictionFiles

MOST_FRAMES = 200
"""Frames that a visitor may ask for."""

_HELP = """
Open a video and choose how many of its frames are observed. The predicted frames are shown beside
the true ones. `natural` takes any video; later frames are less accurate. `digits` is for the
paper's moving digits only.
"""

_VIDEO = "Left: the video. Right: the observed frames, then the prediction"

_STRIP = "Rows: observed frames, true frames, predicted frames"


class PredictTab:
    """The tab's widgets.

    Args:
        root: folder for the results.
        device: where to compute.
        told: shows a user's mistake on the page.
    """

    def __init__(
        self, root: Path, device: str, told: Callable[[], AbstractContextManager[None]]
    ) -> None:
        import gradio as gr

        self._root = root
        self._device = device
        self._told = told
        gr.Markdown(_HELP)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                video = gr.File(
                    label="Video", file_types=["video", ".gif", ".webp"], height=120,
                    elem_id="predict-video",
                )  # fmt: skip
                observe = gr.Number(
                    10, precision=0, minimum=0, label="Observed frames (0: all)",
                    elem_id="observe",
                )  # fmt: skip
                frames = gr.Number(
                    10, precision=0, minimum=1, maximum=MOST_FRAMES, label="Frames to predict"
                )
                weights = gr.Dropdown(list(SHIPPED), value=next(iter(SHIPPED)), label="Weights")
                button = gr.Button("Predict", variant="primary", elem_id="predict")
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
        button.click(
            self._predict,
            [video, observe, frames, weights],
            [both, strip, note],
            concurrency_limit=1,
            api_name="predict",
        )

    def _predict(
        self, video: str | None, observe: float | None, frames: float | None, weights: str
    ) -> tuple[str, Any, str]:
        from stremn.media.video import read_image
        from stremn.prediction.files import predict_video

        with self._told():
            if video is None:
                raise StremnError("Open a video first.")
            if weights not in SHIPPED:
                raise StremnError("Choose one of the weights that the page offers.")
            wanted = int(frames or 0)
            if not 1 <= wanted <= MOST_FRAMES:
                raise StremnError(f"From 1 to {MOST_FRAMES} frames can be predicted here.")
            out = Path(mkdtemp(prefix="prediction-", dir=self._root))
            try:
                files = predict_video(
                    Path(video), out, frames=wanted, observe=int(observe or 0) or None,
                    weights=weights, device=self._device,
                )  # fmt: skip
                strip = read_image(files.strip)
                kept = self._root / "prediction.mp4"  # gradio takes a copy for each visitor
                files.video.replace(kept)
            finally:
                shutil.rmtree(out, ignore_errors=True)
            return str(kept), strip, "\n\n".join([files.note, *_measured(files)])


def _measured(files: "PredictionFiles") -> list[str]:
    """Return the known errors of a prediction, one paragraph each."""
    known = [
        ("Tried on the last frames observed", files.tried),
        ("Against the true frames", files.errors),
    ]
    return [f"{what}: {errors}" for what, errors in known if errors is not None]
