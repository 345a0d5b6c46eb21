"""Turn prompts into masks: encode the frame once, then a closer view of the object."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from stremn.core.hardware import pick_device, pick_precision
from stremn.media.finding import Click
from stremn.networks.inference import for_inference, placed
from stremn.networks.model import Query
from stremn.prompting.corrections import corrected, follows, refined, taken_at_its_word
from stremn.prompting.network import PromptNetwork
from stremn.prompting.planes import MaskPrompt, prompt_planes

Box = tuple[float, float, float, float]

SIDES = (384, 512)
"""Longer sides in pixels of what the network sees; what it finds in them is averaged."""

FOCUS = 0.5
"""Side of the view around a correcting click, as a multiple of the object's."""

EARLY = 3
"""Clicks whose answers may change a mask far from them too: so few say little of its extent."""

ROOM = 1.4
"""Side of the close view, as a multiple of the object's."""

SMALLEST_VIEW = 32.0
"""Side of the smallest close view, in pixels of the frame."""

STEP = 2**0.25
"""From one size of the close view to the next."""

PLACES = 8
"""Places of the close view on its own length."""

WORTH_ZOOM = 0.7
"""The close view is taken where it is less than this share of the frame's longer side."""

STRIDE = 16


@dataclass(frozen=True)
class FrameView:
    """A part of the frame as the network sees it: corner and size, and the longer side it gets."""

    left: int
    top: int
    width: int
    height: int
    side: int = 0

    @property
    def scale(self) -> float:
        """The network's pixels per pixel of the frame."""
        return self.side / max(self.width, self.height)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in the network's pixels, before padding to multiples of 16."""
        return max(1, round(self.height * self.scale)), max(1, round(self.width * self.scale))

    @property
    def padded(self) -> tuple[int, int]:
        """(height, width) that the network sees."""
        height, width = self.size
        return -(-height // STRIDE) * STRIDE, -(-width // STRIDE) * STRIDE

    def rows_columns(self) -> tuple[slice, slice]:
        """Return the part of the frame."""
        return (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )

    def inward(self, image: np.ndarray, how: int) -> np.ndarray:
        """Return the part of a frame-sized map as the network sees it, padded by its border."""
        part = np.ascontiguousarray(image[self.rows_columns()])
        height, width = self.size
        resized = cv2.resize(part, (width, height), interpolation=how)
        bottom, right = self.padded[0] - height, self.padded[1] - width
        return cv2.copyMakeBorder(resized, 0, bottom, 0, right, cv2.BORDER_REPLICATE)

    def prompt(self, prompt: MaskPrompt) -> MaskPrompt:
        """Return the prompt in the view's pixels."""
        clicks = tuple(
            Click((c.x - self.left) * self.scale, (c.y - self.top) * self.scale, c.on)
            for c in prompt.clicks
        )
        box = prompt.box
        if box is not None:
            box = (
                (box[0] - self.left) * self.scale,
                (box[1] - self.top) * self.scale,
                (box[2] - self.left) * self.scale,
                (box[3] - self.top) * self.scale,
            )
        previous = prompt.previous
        if previous is not None:
            previous = self.inward(previous.astype(np.float32), cv2.INTER_LINEAR)
        others = prompt.others
        if others is not None:
            others = self.inward(others.astype(np.uint8), cv2.INTER_NEAREST) > 0
        return MaskPrompt(clicks, box, previous, others)


class Prompter:
    """Finds objects in frames.

    prompter = Prompter(network)
    marked = prompter.open(frame)
    probability = marked.find(MaskPrompt(box=(120, 80, 320, 230)))
    probability = marked.find(MaskPrompt(clicks=(Click(5, 9, False),), previous=probability))
    """

    def __init__(
        self, network: PromptNetwork, *, device: str = "auto", precision: str = "auto"
    ) -> None:
        self.device = pick_device(device)
        self.dtype = pick_precision(precision, self.device)
        self.network = for_inference(placed(network, self.device, self.dtype))

    def open(self, frame: UInt8[np.ndarray, "height width 3"]) -> PromptedFrame:
        """Return a frame (RGB) to find objects in."""
        return PromptedFrame(self, frame)


class PromptedFrame:
    """A frame in which objects are found; encoded views are reused by later prompts.

    The frame is copied: callers may read the next one into the same array.
    """

    def __init__(self, prompter: Prompter, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        self._prompter = prompter
        self._frame = frame.copy()
        self._size = (frame.shape[0], frame.shape[1])
        self._queries: dict[FrameView, Query] = {}

    def shows(self, frame: UInt8[np.ndarray, "height width 3"]) -> bool:
        """Return whether `frame` has the same size and pixels."""
        return np.array_equal(frame, self._frame)

    @torch.inference_mode()
    def find(self, prompt: MaskPrompt) -> Float[np.ndarray, "height width"]:
        """Return the probability of the object at every pixel of the frame.

        A box is processed in a closer view. Clicks are processed in the whole frame first, then in
        a closer view around the object. With a previous mask the latest click corrects it; a click
        that agrees with the mask changes nothing. A previous mask without prompts is refined.
        """
        if prompt.box is not None and prompt.previous is None:
            return self._look(self._closer(prompt.box), prompt)
        if prompt.previous is None:
            found = self._look(self._whole(), prompt)
            near = self._near(found, prompt)
            if near is not None:
                found = self._look(near, replace(prompt, previous=found))
            if prompt.clicks and not follows(found, prompt.clicks[-1]):
                return taken_at_its_word(found, found, prompt.clicks)
            return found
        if prompt.clicks and follows(prompt.previous, prompt.clicks[-1]):
            return prompt.previous
        found = self._look(self._near(prompt.previous, prompt) or self._whole(), prompt)
        if not prompt.clicks:
            return refined(found, prompt.previous) if prompt.box is None else found
        return self._followed(found, prompt)

    def _followed(
        self, found: Float[np.ndarray, "height width"], prompt: MaskPrompt
    ) -> Float[np.ndarray, "height width"]:
        """Return the mask before the latest click, corrected by that click.

        If the network does not follow the click, or changes too much, a closer view around the
        click is tried. If that does not help either, the pixels around the click follow it.
        """
        assert prompt.previous is not None
        clicks, previous = prompt.clicks, prompt.previous
        local = prompt.settled or len(clicks) > EARLY
        wide = corrected(found, previous, clicks, local=local)
        if wide is not None:
            return wide
        view = self._focus(previous, clicks[-1])
        part = view.rows_columns()
        close = previous.copy()  # what the close view does not show stays
        close[part] = self._look(view, prompt)[part]
        near = corrected(close, previous, clicks, local=True)
        return taken_at_its_word(found, previous, clicks) if near is None else near

    def _focus(self, found: Float[np.ndarray, "height width"], click: Click) -> FrameView:
        _, _, width, height = cv2.boundingRect((found > 0.5).astype(np.uint8))
        half = max(FOCUS * max(width, height) / 2, 24.0)
        return self._closer((click.x - half, click.y - half, click.x + half, click.y + half))

    def _whole(self) -> FrameView:
        height, width = self._size
        return FrameView(0, 0, width, height)

    def _near(
        self, found: Float[np.ndarray, "height width"], prompt: MaskPrompt
    ) -> FrameView | None:
        """Return a view around an object and its clicks; None to use the whole frame."""
        mask = (found > 0.5).astype(np.uint8)
        left, top, width, height = cv2.boundingRect(mask)
        xs = [c.x for c in prompt.clicks] + ([left, left + width] if width else [])
        ys = [c.y for c in prompt.clicks] + ([top, top + height] if width else [])
        if prompt.box is not None:
            xs += [prompt.box[0], prompt.box[2]]
            ys += [prompt.box[1], prompt.box[3]]
        if not xs or not width:
            return None
        view = self._closer((min(xs), min(ys), max(xs), max(ys)))
        return view if max(view.width, view.height) < WORTH_ZOOM * max(self._size) else None

    def _closer(self, box: Box) -> FrameView:
        """Return a square view around a box, moved into the frame.

        Its side and its place are rounded, so that the boxes of one click and of the next mostly
        get the same view: what was encoded for the one then serves the other.
        """
        least = max(ROOM * max(box[2] - box[0], box[3] - box[1]), SMALLEST_VIEW)
        side = SMALLEST_VIEW * STEP ** math.ceil(math.log(least / SMALLEST_VIEW, STEP))
        height, width = self._size
        w, h = min(round(side), width), min(round(side), height)
        left, top = ((box[0] + box[2] - w) / 2, (box[1] + box[3] - h) / 2)
        grid = side / PLACES
        left, top = (round(round(corner / grid) * grid) for corner in (left, top))
        return FrameView(min(max(left, 0), width - w), min(max(top, 0), height - h), w, h)

    def _look(self, view: FrameView, prompt: MaskPrompt) -> Float[np.ndarray, "height width"]:
        result = np.zeros(self._size, np.float32)
        result[view.rows_columns()] = np.mean(
            [self._look_at(replace(view, side=side), prompt) for side in SIDES], axis=0
        )
        return result

    def _look_at(self, view: FrameView, prompt: MaskPrompt) -> Float[np.ndarray, "h w"]:
        planes = prompt_planes(view.prompt(prompt), view.padded)
        prompted = torch.from_numpy(planes)[None].to(self._prompter.device)
        logits = self._prompter.network(self._query(view), prompted)
        inside = logits[0].sigmoid().float().cpu().numpy()
        height, width = view.size
        return cv2.resize(
            inside[:height, :width], (view.width, view.height), interpolation=cv2.INTER_LINEAR
        )

    def _query(self, view: FrameView) -> Query:
        if view not in self._queries:
            if len(self._queries) > 3 * len(SIDES):  # the whole frame and the latest views
                del self._queries[next(iter(self._queries))]
            how = cv2.INTER_AREA if view.scale < 1 else cv2.INTER_LINEAR
            pixels = torch.from_numpy(view.inward(self._frame, how)).to(self._prompter.device)
            planar = pixels.permute(2, 0, 1)[None].contiguous().to(self._prompter.dtype) / 255
            self._queries[view] = self._prompter.network.encode(planar)
        return self._queries[view]
