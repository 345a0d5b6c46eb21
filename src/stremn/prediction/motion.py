"""Motion between frames: estimated by DIS optical flow, carried forward, and used to move pixels.

Not in the paper: an extension for real video. A flow "b 2 height width" holds, for each pixel of a
frame, how far to the right and how far down lies, in pixels, the place in the frame *before* that
shows the same thing. So `move(before, flow)` redraws the frame from the one before it.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

MotionName = Literal["none", "dis", "carried"]

SMALLEST = 32
"""Shorter side in pixels that the DIS estimator can work on."""


class Motion(Protocol):
    """What estimates the motion that leads to the frame after a stack."""

    def __call__(
        self,
        stack: Float[Tensor, "b s c height width"],
        led: Float[Tensor, "b 2 height width"] | None = None,
    ) -> Float[Tensor, "b 2 height width"]:
        """Return the flow from the coming frame back to the stack's last one, in pixels.

        `led` is the flow that led to the last frame, if that was predicted; None: it was observed.
        """
        ...


def dis_motion(
    stack: Float[Tensor, "b s c height width"],
    led: Float[Tensor, "b 2 height width"] | None = None,
) -> Float[Tensor, "b 2 height width"]:
    """Estimate the flow of a stack's last two frames with DIS, and carry it one frame forward.

    Things are taken to go on at the speed they have: the flow itself is moved by the flow. No
    gradient flows back into the stack. After Kroeger et al. 2016, through OpenCV.

    Args:
        stack: frames in [0, 1], at least two; computed on the CPU, whatever the device.
        led: has no effect: predicted frames are looked at like observed ones.
    """
    return _estimated(stack, cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM))


def carried_motion(
    stack: Float[Tensor, "b s c height width"],
    led: Float[Tensor, "b 2 height width"] | None = None,
) -> Float[Tensor, "b 2 height width"]:
    """Estimate the flow of observed frames as `dis_motion`, but of all pixels; then carry it on.

    OpenCV's estimator stops at half the resolution. The flow of predicted frames is not estimated:
    it is the one that made them, and an estimate adds errors. No gradient flows back into it:
    through a chain of flows gradients would explode.

    Args:
        stack: as for `dis_motion`.
        led: the flow that led to the last frame, if that was predicted.
    """
    if led is not None:
        return carry_forward(led.detach())
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    estimator.setFinestScale(0)
    return _estimated(stack, estimator)


def _estimated(
    stack: Float[Tensor, "b s c height width"], estimator: cv2.DISOpticalFlow
) -> Float[Tensor, "b 2 height width"]:
    """Return the flow of a stack's last two frames, carried one frame forward."""
    last, before = stack[:, -1], stack[:, -2]
    with torch.no_grad():
        pairs = zip(_grey(last), _grey(before), strict=True)
        flow = np.stack([_dis(estimator, here, there) for here, there in pairs])
        motion = torch.from_numpy(flow).permute(0, 3, 1, 2).to(stack.device)
        return carry_forward(motion)


def carry_forward(
    flow: Float[Tensor, "b 2 height width"],
) -> Float[Tensor, "b 2 height width"]:
    """Extrapolate the flow by one frame: move the flow by itself."""
    return move(flow, flow)


def compose(
    later: Float[Tensor, "b 2 height width"], earlier: Float[Tensor, "b 2 height width"]
) -> Float[Tensor, "b 2 height width"]:
    """Return the flow over two steps: back by `later`, and from there back by `earlier`."""
    return later + move(earlier, later)


def move(
    frame: Float[Tensor, "b c height width"], flow: Float[Tensor, "b 2 height width"]
) -> Float[Tensor, "b c height width"]:
    """Redraw a frame one step later: each pixel is fetched from where its flow points.

    Args:
        frame: what to fetch from, bilinearly; places outside take the nearest pixel inside.
        flow: in pixels, to the right and down.
    """
    return F.grid_sample(frame, _places(flow), padding_mode="border", align_corners=True)


def smooth(
    x: Float[Tensor, "b c height width"], deviation: float
) -> Float[Tensor, "b c height width"]:
    """Smooth maps with a Gaussian of a standard deviation in pixels; edges are repeated.

    A deviation of 0 changes nothing.
    """
    if not deviation:
        return x
    down, across = (_gaussian(length, deviation, x) for length in x.shape[-2:])
    return down @ x @ across.mT


def _gaussian(length: int, deviation: float, like: Tensor) -> Float[Tensor, "length length"]:
    """Return the matrix that smooths a line; a product is faster than a wide convolution."""
    reach = math.ceil(3 * deviation)
    steps = torch.arange(-reach, reach + 1, device=like.device)
    weights = torch.exp(-(steps.to(like.dtype) / deviation).square() / 2)
    places = torch.arange(length, device=like.device)[:, None] + steps
    rows = like.new_zeros(length, length)
    weights = (weights / weights.sum()).expand(length, -1)
    return rows.scatter_add(1, places.clamp(0, length - 1), weights)


def inside(flow: Float[Tensor, "b 2 height width"]) -> Float[Tensor, "b 1 height width"]:
    """Return 1 where a flow points into the frame, 0 where it points beyond its edge."""
    return (_places(flow).abs() <= 1).all(-1)[:, None].to(flow.dtype)


def redraw(
    frame: Float[Tensor, "b c height width"], flow: Float[Tensor, "b 2 height width"]
) -> Float[Tensor, "b c height width"]:
    """Move a picture with values in [0, 1] as `move` does, but bicubically.

    Bilinear sampling blurs more.
    """
    places = _places(flow)
    sampled = F.grid_sample(
        frame, places, mode="bicubic", padding_mode="border", align_corners=True
    )
    return sampled.clamp(0, 1)


def _places(flow: Float[Tensor, "b 2 height width"]) -> Float[Tensor, "b height width 2"]:
    """Return where each pixel is fetched from, as `grid_sample` takes it: -1 to 1, x before y."""
    height, width = flow.shape[-2:]
    across = torch.arange(width, device=flow.device, dtype=flow.dtype)
    down = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None]
    x = (across + flow[:, 0]) * (2 / max(width - 1, 1)) - 1
    y = (down + flow[:, 1]) * (2 / max(height - 1, 1)) - 1
    return torch.stack([x, y], dim=-1)


def build_motion(name: MotionName) -> Motion | None:
    """Return the estimator of a name; None for "none"."""
    estimators: dict[MotionName, Motion | None] = {
        "none": None,
        "dis": dis_motion,
        "carried": carried_motion,
    }
    return estimators[name]


def _grey(frames: Float[Tensor, "b c height width"]) -> UInt8[np.ndarray, "b height width"]:
    """Return frames as DIS takes them."""
    weights = frames.new_tensor([0.299, 0.587, 0.114] if frames.shape[1] == 3 else [1.0])
    grey = (frames.float() * weights.view(1, -1, 1, 1)).sum(1)
    return (grey * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def _dis(
    estimator: cv2.DISOpticalFlow,
    here: UInt8[np.ndarray, "height width"],
    there: UInt8[np.ndarray, "height width"],
) -> Float[np.ndarray, "height width 2"]:
    still = np.zeros((*here.shape, 2), np.float32)
    return still if min(here.shape) < SMALLEST else estimator.calc(here, there, still)
