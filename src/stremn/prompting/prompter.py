"""From a frame and prompts to a mask: encode the frame once, look closer where the object is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from stremn.core.hardware import pick_device, pick_precision
from stremn.media.finding import Click
from stremn.networks.inference import for_inference, placed
from stremn.networks.model import Query
from stremn.prompting.network import PromptNetwork
from stremn.prompting.planes import Prompt, prompt_planes

Box = tuple[float, float, float, float]

SIDES = (384, 512)
"""Longer sides in pixels of what the network sees; what it finds in them is averaged."""

DISC = 0.01
"""Radius of a click's disc where the network does not follow it, as a share of the frame."""

FOCUS = 0.5
"""Side of the view round a correcting click, as a multiple of the object's."""

LARGEST_CUT = 0.5
"""Share of an object that one click off it may take away."""

ROOM = 1.4
"""Side of the close view, as a multiple of the object's."""

WORTH_ZOOM = 0.7
"""The close view is taken where it is less than this share of the frame's longer side."""

STRIDE = 16


@dataclass(frozen=True)
class View:
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

    def prompt(self, prompt: Prompt) -> Prompt:
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
        return Prompt(clicks, box, previous, others)


class Prompter:
    """Finds objects in frames.

    prompter = Prompter(network)
    marked = prompter.open(frame)
    probability = marked.find(Prompt(box=(120, 80, 320, 230)))
    probability = marked.find(Prompt(clicks=(Click(5, 9, False),), previous=probability))
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
    """A frame in which objects are found; what was computed for one prompt serves the next."""

    def __init__(self, prompter: Prompter, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        self._prompter = prompter
        self._frame = frame
        self._size = (frame.shape[0], frame.shape[1])
        self._queries: dict[View, Query] = {}

    @torch.inference_mode()
    def find(self, prompt: Prompt) -> Float[np.ndarray, "height width"]:
        """Return the probability of the object at every pixel of the frame.

        A box is looked at closely at once. Clicks are first looked at in the whole frame, then
        round what was found.
        """
        if prompt.box is not None and prompt.previous is None:
            return self._look(self._closer(prompt.box), prompt)
        if prompt.previous is None:
            found = self._look(self._whole(), prompt)
            near = self._near(found, prompt)
            if near is None:
                return found
            return self._look(near, replace(prompt, previous=found))
        found = self._look(self._near(prompt.previous, prompt) or self._whole(), prompt)
        return self._followed(found, prompt) if prompt.clicks else found

    def _followed(
        self, found: Float[np.ndarray, "height width"], prompt: Prompt
    ) -> Float[np.ndarray, "height width"]:
        """Return a mask that follows the latest click, and keeps most of what was there.

        Where the network does not follow the click, it looks closely round it; if that does not
        help either, the click's disc is taken at its word.
        """
        assert prompt.previous is not None
        click, previous = prompt.clicks[-1], prompt.previous
        if not click.on and (found > 0.5).sum() < LARGEST_CUT * (previous > 0.5).sum():
            found = previous  # it would take away the object
        if _says(found, click):
            return found
        close = self._look(self._focus(previous, click), prompt)
        part = _part_at(close > 0.5, found > 0.5, click)
        if part is None or (not click.on and part.sum() > LARGEST_CUT * (found > 0.5).sum()):
            disc = np.zeros(self._size, np.uint8)
            radius = max(2, round(DISC * max(self._size)))
            cv2.circle(disc, (round(click.x), round(click.y)), radius, 1, cv2.FILLED)
            part, close = disc > 0, np.full(self._size, float(click.on), np.float32)
        return np.where(part, close, found)

    def _focus(self, found: Float[np.ndarray, "height width"], click: Click) -> View:
        _, _, width, height = cv2.boundingRect((found > 0.5).astype(np.uint8))
        half = max(FOCUS * max(width, height) / 2, 24.0)
        return self._closer((click.x - half, click.y - half, click.x + half, click.y + half))

    def _whole(self) -> View:
        height, width = self._size
        return View(0, 0, width, height)

    def _near(self, found: Float[np.ndarray, "height width"], prompt: Prompt) -> View | None:
        """Return the view round an object and its clicks; None where the whole frame serves."""
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

    def _closer(self, box: Box) -> View:
        """Return a square view round a box, moved into the frame."""
        side = max(ROOM * max(box[2] - box[0], box[3] - box[1]), 32.0)
        height, width = self._size
        w, h = min(round(side), width), min(round(side), height)
        left = round(min(max((box[0] + box[2] - w) / 2, 0), width - w))
        top = round(min(max((box[1] + box[3] - h) / 2, 0), height - h))
        return View(left, top, w, h)

    def _look(self, view: View, prompt: Prompt) -> Float[np.ndarray, "height width"]:
        result = np.zeros(self._size, np.float32)
        result[view.rows_columns()] = np.mean(
            [self._look_at(replace(view, side=side), prompt) for side in SIDES], axis=0
        )
        return result

    def _look_at(self, view: View, prompt: Prompt) -> Float[np.ndarray, "h w"]:
        planes = prompt_planes(view.prompt(prompt), view.padded)
        prompted = torch.from_numpy(planes)[None].to(self._prompter.device)
        logits = self._prompter.network(self._query(view), prompted)
        inside = logits[0].sigmoid().float().cpu().numpy()
        height, width = view.size
        return cv2.resize(
            inside[:height, :width], (view.width, view.height), interpolation=cv2.INTER_LINEAR
        )

    def _query(self, view: View) -> Query:
        if view not in self._queries:
            if len(self._queries) > 3 * len(SIDES):  # the whole frame and the latest views
                del self._queries[next(iter(self._queries))]
            how = cv2.INTER_AREA if view.scale < 1 else cv2.INTER_LINEAR
            pixels = torch.from_numpy(view.inward(self._frame, how)).to(self._prompter.device)
            planar = pixels.permute(2, 0, 1)[None].contiguous().to(self._prompter.dtype) / 255
            self._queries[view] = self._prompter.network.encode(planar)
        return self._queries[view]


def _says(found: Float[np.ndarray, "height width"], click: Click) -> bool:
    """Return whether a mask agrees with a click at its pixel."""
    row = min(max(round(click.y), 0), found.shape[0] - 1)
    column = min(max(round(click.x), 0), found.shape[1] - 1)
    return bool(found[row, column] > 0.5) == click.on


def _part_at(
    after: Bool[np.ndarray, "height width"],
    before: Bool[np.ndarray, "height width"],
    click: Click,
) -> Bool[np.ndarray, "height width"] | None:
    """Return the connected change of a mask that a click lies on; None if there is none."""
    _, parts = cv2.connectedComponents((before != after).astype(np.uint8), connectivity=8)
    row = min(max(round(click.y), 0), parts.shape[0] - 1)
    column = min(max(round(click.x), 0), parts.shape[1] - 1)
    part = parts[row, column]
    return None if part == 0 else parts == part
