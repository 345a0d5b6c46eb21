"""Tiny SAM models of transformers with random weights, and what their own sessions answer."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

FAMILIES = ("sam2_video", "edgetam_video", "sam3_tracker_video")


def tiny_sam(family: str = "sam2_video", seed: int = 0, **changes: object) -> torch.nn.Module:
    """Return a toy of one to two million weights, none of them zero."""
    from stremn.sam.shapes import random_network
    from stremn.sam.toys import toy_config

    return random_network(toy_config(family, **changes), seed)


def noisy_square(frame: int, height: int = 48, width: int = 80) -> np.ndarray:
    """Return a frame: noise of its own, and a bright square that moves."""
    image = np.random.default_rng(frame).integers(0, 120, (height, width, 3), dtype=np.uint8)
    left = 4 + frame * 3 % (width - 24)
    image[12:32, left : left + 20] += 120
    return image


def square_mask(frame: int, object_id: int = 1, height: int = 48, width: int = 80) -> np.ndarray:
    """Return the mask of that square."""
    mask = np.zeros((height, width), np.uint8)
    left = 4 + frame * 3 % (width - 24)
    mask[12:32, left : left + 20] = object_id
    return mask


class OwnSession:
    """transformers' own streaming inference of a model: all of the past, frame by frame.

    EdgeTAM gets a session an object: its code fails where only some objects have a mask.
    """

    def __init__(self, model: torch.nn.Module, device: str = "cpu") -> None:
        from stremn.sam.models import of_network

        self.source = of_network(model)
        self.model = model
        self.device = torch.device(device)
        self.alone = model.config.model_type == "edgetam_video"
        self.sessions: dict[int, object] = {}
        self.frame = -1

    def _session(self, name: int) -> object:
        from stremn.sam.reading import session_class

        key = name if self.alone else 0
        if key not in self.sessions:
            self.sessions[key] = session_class(self.model)(
                inference_device=self.device,
                inference_state_device=self.device,
                video_storage_device=self.device,
                dtype=torch.float32,
            )
        return self.sessions[key]

    def step(self, image: np.ndarray, mask: np.ndarray | None = None) -> torch.Tensor:
        """Return the logits of all objects at the frame's size."""
        from stremn.sam.prompts import mask_prompt

        self.frame += 1
        pixels = self.source.pixels(torch.from_numpy(image).to(self.device), torch.float32)
        for name in [] if mask is None else [int(i) for i in np.unique(mask) if i]:
            session = self._session(name)
            given = mask_prompt(mask == name, self.source.size, self.device)["mask"]
            session.add_mask_inputs(session.obj_id_to_idx(name), self.frame, given)
            session.obj_with_new_inputs.append(name)
        with torch.inference_mode():
            answers = [
                self.model(inference_session=session, frame=pixels, frame_idx=self.frame)
                for session in self.sessions.values()
            ]
        size = tuple(image.shape[:2])
        logits = torch.cat([answer.pred_masks.float() for answer in answers])
        return F.interpolate(logits, size, mode="bilinear")[:, 0]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors that the session holds on to."""
        return held_bytes(self.sessions)


def held_bytes(x: object) -> int:
    """Return the bytes of all tensors' storages that are reachable, each counted once."""
    found: dict[int, int] = {}
    queue, seen = [x], set()
    while queue:
        item = queue.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            storage = item.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        elif isinstance(item, dict):
            queue += item.values()
        elif isinstance(item, list | tuple):
            queue += item
        elif not isinstance(item, torch.nn.Module) and hasattr(item, "__dict__"):
            queue += vars(item).values()
    return sum(found.values())
