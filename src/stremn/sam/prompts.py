"""Prompts for a SAM model's own prompt encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional as F

from stremn.errors import StremnError

ON, OFF, TOP_LEFT, BOTTOM_RIGHT = 1, 0, 2, 3
"""Labels of points in SAM's prompt encoder."""


@dataclass(frozen=True)
class Prompt:
    """Where one object is: a box, points on it, points that are not on it, in pixels.

    box: (x, y, width, height); points: (x, y) each.
    """

    box: tuple[float, float, float, float] | None = None
    clicks: Sequence[tuple[float, float]] = ()
    exclude: Sequence[tuple[float, float]] = ()

    def check(self, size: tuple[int, int]) -> None:
        """Refuse what is not on a frame of `size` (height, width).

        Raises:
            StremnError: neither box nor click, or a place outside the frame.
        """
        if self.box is None and not self.clicks:
            raise StremnError("A prompt needs a box or a click on the object.")
        corners = [] if self.box is None else [self.box[:2]]
        for x, y in [*corners, *self.clicks, *self.exclude]:
            if not (0 <= x < size[1] and 0 <= y < size[0]):
                raise StremnError(
                    f"({x:g}, {y:g}) is outside the frame, which is {size[1]}x{size[0]} pixels."
                )
        if self.box is not None and not (self.box[2] > 0 and self.box[3] > 0):
            raise StremnError(f"A box needs a width and a height above 0, got {self.box}.")

    def tensors(
        self, size: tuple[int, int], model_size: int, device: torch.device
    ) -> dict[str, Tensor]:
        """Return points and their labels at the model's size."""
        corners: list[tuple[float, float]] = []
        if self.box is not None:
            x, y, width, height = self.box
            corners = [(x, y), (x + width, y + height)]
        points = [*corners, *self.clicks, *self.exclude]
        labels = [TOP_LEFT, BOTTOM_RIGHT] if corners else []
        labels += [ON] * len(self.clicks) + [OFF] * len(self.exclude)
        scale = torch.tensor([model_size / size[1], model_size / size[0]])
        return {
            "point_coords": (torch.tensor(points).float() * scale)[None, None].to(device),
            "point_labels": torch.tensor(labels, dtype=torch.int32)[None, None].to(device),
        }


def mask_prompt(
    mask: Bool[np.ndarray, "height width"], model_size: int, device: torch.device
) -> dict[str, Tensor]:
    """Return a mask at the model's size, hard as transformers' processor makes it."""
    whole = torch.from_numpy(mask)[None, None].float().to(device)
    if whole.shape[-2:] != (model_size, model_size):
        size = (model_size, model_size)
        whole = F.interpolate(whole, size, mode="bilinear", align_corners=False, antialias=True)
        whole = (whole >= 0.5).float()
    return {"mask": whole}
