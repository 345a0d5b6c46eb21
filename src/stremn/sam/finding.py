"""Find objects from boxes and clicks with a SAM model's own prompt encoder and mask decoder."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from stremn.core.hardware import pick_device, pick_precision
from stremn.errors import StremnError
from stremn.media.finding import Click, ObjectMask, check_prompt, without_others
from stremn.media.frames import Picture
from stremn.media.prompts import Box
from stremn.sam.models import SamModel
from stremn.sam.prompts import Prompt, mask_prompt

SURE = 10.0
"""Logit, without its sign, of a mask that is given to be refined."""


class SamFinder:
    """A `MaskFinder`. What was computed for the latest frame is kept: a click costs a decoding.

    Several threads may share a finder: they are answered one at a time.
    """

    def __init__(self, model: SamModel, *, device: str = "auto", precision: str = "auto") -> None:
        self._device = pick_device(device)
        self._dtype = pick_precision(precision, self._device)
        self._model = model.placed(self._device, self._dtype)
        self._frame: Picture | None = None
        self._features: list[Tensor] = []
        self._lock = threading.Lock()  # features are kept with the frame that they belong to

    def __call__(
        self,
        frame: Picture,
        *,
        box: Box | None = None,
        clicks: Sequence[Click] = (),
        previous: ObjectMask | None = None,
        others: ObjectMask | None = None,
    ) -> ObjectMask:
        """Return the mask of one object; see `MaskFinder`."""
        check_prompt(frame, box, clicks, previous)
        if previous is not None and not clicks and box is None:
            return without_others(previous, others)
        if box is None and previous is None and not any(on for _, _, on in clicks):
            raise StremnError("Clicks need at least one point on the object.")
        prompt = Prompt(
            None if box is None else (box.x, box.y, box.width, box.height),
            [(x, y) for x, y, on in clicks if on],
            [(x, y) for x, y, on in clicks if not on],
        )
        with self._lock, torch.inference_mode():
            self._look(frame)
            logits = self._logits(prompt, (frame.shape[0], frame.shape[1]), previous)
        return without_others(logits.cpu().numpy() > 0, others)

    def _look(self, frame: Picture) -> None:
        if self._frame is not None and np.array_equal(frame, self._frame):
            return
        pixels = self._model.pixels(torch.from_numpy(frame).to(self._device), self._dtype)
        features = self._model.network.get_image_embeddings(pixels)
        # A copy, because the caller may fill the same array with the next frame.
        self._frame, self._features = frame.copy(), features

    def _logits(
        self, prompt: Prompt, size: tuple[int, int], previous: ObjectMask | None
    ) -> Float[Tensor, "height width"]:
        network: Any = self._model.network
        points = prompt.tensors(size, self._model.size, self._device)
        begun = None
        if previous is not None:
            whole = mask_prompt(previous, self._model.size, self._device)["mask"]
            begun = ((2 * whole - 1) * SURE).to(self._dtype)
        # A prompt that leaves much open is answered with several masks, and the best is taken.
        several = begun is None and network._use_multimask(True, points)
        answer = network._single_frame_forward(
            input_points=points["point_coords"].to(self._dtype),
            input_labels=points["point_labels"],
            input_masks=begun,
            image_embeddings=list(self._features),
            multimask_output=several,
        )
        logits = answer.pred_masks.float().reshape(1, 1, *answer.pred_masks.shape[-2:])
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)[0, 0]
