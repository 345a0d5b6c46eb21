"""Measure SAM models: step times, and memory over a long stream compared with transformers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stremn.benchmarks.constancy import resident_bytes
from stremn.benchmarks.workload import Workload, made_frame, made_labels
from stremn.core.machine import times
from stremn.media.masks import Labels
from stremn.sam.models import SamModel, load_sam, of_network
from stremn.sam.opening import is_sam
from stremn.sam.prompts import mask_prompt
from stremn.sam.reading import session_class
from stremn.sam.sessions import SamSession
from stremn.sam.shapes import SHAPES, random_sam

SIDES = 480, 854
"""Height and width of the frames; every model brings them to a square of its own."""

ROWS = 20
"""Of the table of a long stream, at most."""


def is_measured_here(name: str) -> bool:
    """Return whether a name is that of a SAM model: one of `SHAPES`, a folder or a hub id."""
    return name in SHAPES or is_sam(name)


def ready_sam(name: str) -> SamModel:
    """Return one of `SHAPES` with random weights, or the model of a folder or hub id."""
    return random_sam(name) if name in SHAPES else load_sam(name)


def measure_sam_steps(model: SamModel, plan: Workload, precision: str) -> list[dict[str, Any]]:
    """Measure steps whose memory is full, against objects and slots, one at a time."""
    usual = model.memories
    cases = dict.fromkeys(
        [*((n, usual) for n in plan.objects), *((1, k) for k in plan.memory_slots)]
    )
    return [_measure_step(model, plan, precision, n, slots) for n, slots in cases]


def _measure_step(
    model: SamModel, plan: Workload, precision: str, objects: int, slots: int
) -> dict[str, Any]:
    session = SamSession(model, device="cpu", precision=precision, memory_slots=slots)
    session.step(made_frame(*SIDES), made_labels(*SIDES, objects))
    for index in range(1, slots):
        session.step(made_frame(*SIDES, index))
    frame = made_frame(*SIDES, slots)  # drawn here, so that a step's time is the step's alone
    taken = times(lambda: session.step(frame), plan.seconds, 2)
    return {
        "objects": objects,
        "memory_slots": slots,
        "precision": precision,
        "ms": statistics.median(taken) * 1e3,
        "best_ms": min(taken) * 1e3,
        "memory_bytes": session.memory_bytes,
    }


# ------------------------------------------------------------------------------ long streams


def measure_sam_growth(model: SamModel, frames: int, precision: str) -> list[dict[str, Any]]:
    """Stream frames of one object through both sessions: this package's, then transformers'.

    One after the other in this process, so that what the process grows by is each one's own.

    Returns:
        A row for every so many frames: session, frame, median ms of a step since the row before,
        bytes of all tensors that the session holds, bytes of the process.
    """
    ours = SamSession(model, device="cpu", precision=precision, policy="evidence")
    theirs = OwnSession(ours.source.network, dtype=ours.dtype)
    remembered = [name for name in vars(ours) if name.startswith("_")]

    def kept() -> int:
        return held_bytes([vars(ours)[name] for name in remembered])

    rows = list(_streamed("stremn", ours.step, kept, frames))
    del ours
    return rows + list(_streamed("transformers", theirs.step, lambda: theirs.nbytes, frames))


def _streamed(
    name: str, step: Callable[..., object], kept: Callable[[], int], frames: int
) -> Iterator[dict[str, Any]]:
    loop, given = [made_frame(*SIDES, index) for index in range(40)], made_labels(*SIDES, 1)
    every, taken = max(1, frames // ROWS), []
    for index in range(frames):
        began = time.perf_counter()
        step(loop[index % len(loop)], given if index == 0 else None)
        taken.append(time.perf_counter() - began)
        if (index + 1) % every == 0:
            yield {
                "session": name,
                "frame": index + 1,
                "ms": statistics.median(taken) * 1e3,
                "session_bytes": kept(),
                "process_bytes": resident_bytes(),
            }
            taken = []


class OwnSession:
    """The streaming inference of transformers, which keeps all past frames.

    EdgeTAM gets one session per object: its code fails where only some objects have a mask.
    """

    def __init__(
        self, model: nn.Module, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self.source = of_network(model)
        self.model = model
        self.device = torch.device(device)
        self.dtype = dtype
        self.alone = self.source.network.config.model_type == "edgetam_video"
        self.sessions: dict[int, Any] = {}
        self.frame = -1

    def _session(self, name: int) -> Any:
        key = name if self.alone else 0
        if key not in self.sessions:
            self.sessions[key] = session_class(self.model)(
                inference_device=self.device,
                inference_state_device=self.device,
                video_storage_device=self.device,
                dtype=self.dtype,
            )
        return self.sessions[key]

    def step(
        self, image: np.ndarray, mask: Labels | None = None
    ) -> Float[Tensor, "o height width"]:
        """Return the logits of all objects at the frame's size."""
        self.frame += 1
        pixels = self.source.pixels(torch.from_numpy(image).to(self.device), self.dtype)
        labels = np.zeros(image.shape[:2], np.uint8) if mask is None else mask
        for name in (int(i) for i in np.unique(labels) if i):
            session = self._session(name)
            given = mask_prompt(labels == name, self.source.size, self.device)["mask"]
            session.add_mask_inputs(session.obj_id_to_idx(name), self.frame, given)
            session.obj_with_new_inputs.append(name)
        with torch.inference_mode():
            answers = [
                self.model(inference_session=session, frame=pixels, frame_idx=self.frame)
                for session in self.sessions.values()
            ]
        size = (image.shape[0], image.shape[1])
        logits = torch.cat([answer.pred_masks.float() for answer in answers])
        return F.interpolate(logits, size, mode="bilinear")[:, 0]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors that the session keeps."""
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
        if isinstance(item, Tensor):
            storage = item.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        elif isinstance(item, dict):
            queue += item.values()
        elif isinstance(item, list | tuple):
            queue += item
        elif not isinstance(item, nn.Module) and hasattr(item, "__dict__"):
            queue += vars(item).values()
    return sum(found.values())
