"""Read a session's inputs: frames and masks as arrays, tensors, images or files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from stremn.core.arguments import whole_number
from stremn.errors import StremnError
from stremn.media.mask_codes import MAX_ID
from stremn.media.masks import LabelMap, label_map, read_mask
from stremn.media.video import as_picture

FrameInput = np.ndarray | Image.Image | Tensor
MaskInput = np.ndarray | Image.Image | Tensor | str | Path

OVERSHOOT = 1e-3
"""How far floating-point frames may leave [0, 1]: resizing and half precision do."""


def as_rgb(frame: FrameInput) -> UInt8[np.ndarray, "height width 3"]:
    """Return a frame as an array, from an array, an image, or a tensor with channels anywhere."""
    if isinstance(frame, Tensor):
        array = _plain(frame, "The frame")
        if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
            array = array.permute(1, 2, 0)
        if array.is_floating_point() and array.numel():
            array = (_in_unit_range(array).clamp(0, 1) * 255).round().to(torch.uint8)
        return as_picture(np.ascontiguousarray(array.numpy()))
    if not isinstance(frame, np.ndarray | Image.Image):
        raise StremnError(
            "A frame is an array, a PIL image or a tensor, of RGB; got "
            f"{type(frame).__name__}. Read files with open_frames."
        )
    return as_picture(frame)


def as_planes(
    image: UInt8[np.ndarray, "h w 3"], device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "1 3 h w"]:
    """Return a frame in [0, 1] as the network takes it."""
    writable = image if image.flags.writeable else image.copy()  # PyTorch warns of others
    pixels = torch.from_numpy(writable).to(device)
    # Planes, not interleaved: shifting and scaling each color is then ten times as fast.
    return pixels.permute(2, 0, 1)[None].contiguous().to(dtype) / 255


def _plain(x: Tensor, what: str) -> Tensor:
    """Return a tensor on the CPU in a type that NumPy supports."""
    if x.layout is not torch.strided or x.is_quantized or x.is_nested or x.is_meta:
        raise StremnError(f"{what} must be a dense tensor, got layout {x.layout} on {x.device}.")
    if x.is_complex():
        raise StremnError(f"{what} must hold real numbers, got {x.dtype}.")
    plain = x.detach().cpu()
    return plain.float() if plain.is_floating_point() else plain


def _in_unit_range(frame: Tensor) -> Tensor:
    """Return a floating-point frame if it is in [0, 1], up to rounding."""
    low, high = float(frame.min()), float(frame.max())  # NaN if there is one
    if not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):
        raise StremnError(
            f"Floating-point frames must hold numbers in [0, 1], but these reach from {low:g} to "
            f"{high:g}. Divide 8-bit values by 255; undo a normalization; look for NaN."
        )
    return frame


def _label_map(mask: MaskInput) -> LabelMap:
    """Return a mask given as an array, a tensor, an image or a file as a label map."""
    if isinstance(mask, Tensor):
        return label_map(_plain(mask, "The mask").numpy())
    if isinstance(mask, np.ndarray) and mask.ndim == 2:
        return label_map(mask)
    if not isinstance(mask, np.ndarray | Image.Image | str | Path):
        raise StremnError(
            "A mask is an array, a tensor, a PIL image or the path of a file; got "
            f"{type(mask).__name__}."
        )
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


def size_of(
    image: UInt8[np.ndarray, "height width 3"], before: tuple[int, int] | None, index: int
) -> tuple[int, int]:
    """Return (height, width) of frame `index`.

    Raises:
        StremnError: it is not that of the frames `before`.
    """
    size = (image.shape[0], image.shape[1])
    if before is not None and size != before:
        raise StremnError(
            f"Frame {index} is {size[1]}x{size[0]} pixels, those before were "
            f"{before[1]}x{before[0]}. Resize it, or start a new session."
        )
    return size


def index_of(object_id: int, ids: Sequence[int]) -> int:
    """Return the place of an object among those followed.

    Raises:
        StremnError: there is no such object.
    """
    object_id = whole_number(object_id, "object_id", 1, MAX_ID)
    if object_id not in ids:
        known = ", ".join(map(str, ids)) or "none"
        raise StremnError(f"There is no object {object_id}. Objects followed now: {known}.")
    return ids.index(object_id)
