"""What a session takes: frames and masks as arrays, tensors, images or files."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from stremn.errors import StremnError
from stremn.media.masks import LabelMap, label_map, read_mask
from stremn.media.video import as_picture

FrameInput = np.ndarray | Image.Image | Tensor
MaskInput = np.ndarray | Image.Image | Tensor | str | Path


def as_rgb(frame: FrameInput) -> UInt8[np.ndarray, "height width 3"]:
    """Return a frame as an array, from an array, an image, or a tensor with channels anywhere."""
    if isinstance(frame, Tensor):
        array = frame.detach().cpu()
        if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
            array = array.permute(1, 2, 0)
        if array.is_floating_point():
            array = (array.clamp(0, 1) * 255).round().to(torch.uint8)
        return as_picture(np.ascontiguousarray(array.numpy()))
    return as_picture(frame)


def _label_map(mask: MaskInput) -> LabelMap:
    """Return a mask given as an array, a tensor, an image or a file as a label map."""
    if isinstance(mask, Tensor):
        return label_map(mask.detach().cpu().numpy())
    if isinstance(mask, np.ndarray) and mask.ndim == 2:
        return label_map(mask)
    return read_mask(mask)


def given_masks(mask: MaskInput, size: tuple[int, int]) -> LabelMap:
    """Return the masks given with a frame of `size` (height, width) as a label map.

    Raises StremnError if they are of another size, or hold no object.
    """
    given = _label_map(mask)
    if given.size != size:
        raise StremnError(
            f"The mask is {given.size[1]}x{given.size[0]} pixels, the frame "
            f"{size[1]}x{size[0]}: they must be equal. `stremn check-mask` can resize it."
        )
    if not given.ids:
        raise StremnError(
            "The mask holds no object: all pixels are 0. Give each object an id above 0."
        )
    return given
