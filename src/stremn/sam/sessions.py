"""Streaming segmentation with a SAM model: K slots per object, used like `SegmentationSession`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from stremn.core.arguments import whole_number
from stremn.core.guarded_calls import GuardedCalls, guarded
from stremn.core.hardware import pick_device, pick_precision
from stremn.core.weights import fingerprint
from stremn.errors import StremnError
from stremn.media.mask_codes import MAX_ID
from stremn.media.masks import Labels
from stremn.memory.choices import Choice, UpdatePolicy, checked
from stremn.memory.state import MemoryState, Template
from stremn.networks.working_size import WorkingSize
from stremn.sam.models import SamModel, load_sam, of_network
from stremn.sam.prompts import Prompt, mask_prompt
from stremn.sam.reading import Past, Prompts, Seen, look, reading_slots
from stremn.sam.rules import SAM_POLICY, checked_slots, sam_rule
from stremn.sam.saved import SavedSam, read_sam, write_sam
from stremn.sam.slots import ObjectSlots
from stremn.segmentation.inputs import FrameInput, MaskInput, as_rgb, given_masks, index_of, size_of
from stremn.segmentation.reports import Decision, MemoryReport, StepResult, memory_report

_REMEMBERED = (
    "frame",
    "_memories",
    "_frame_size",
    "_shape",
    "_places",
    "_features",
    "_logits",
    "_truth",
    "_decisions",
)


class SamSession:
    """Follows objects through a video with SAM 2.1, EdgeTAM or SAM 3's tracker.

        session = SamSession.from_pretrained("facebook/sam2.1-hiera-tiny")
        result = session.step(frame, mask)
        for frame in frames:
            result = session.step(frame)

    Of past frames it keeps K templates per object and a bounded number of pointers, nothing else,
    whatever the length of the video.
    """

    def __init__(
        self,
        model: SamModel | nn.Module,
        *,
        device: str = "auto",
        precision: str = "float32",
        memory_slots: int | None = None,
        policy: str | UpdatePolicy = SAM_POLICY,
        seed: int = 0,
    ) -> None:
        """Start with no objects.

        Args:
            model: from `load_sam`, or a video model of transformers; copied if it is on another
                device or in another precision.
            device: "auto", "cpu", "cuda", "cuda:1", ...
            precision: "auto" (bfloat16 where the hardware has it), "float32" or "bfloat16".
            memory_slots: K, templates kept of each object, the given one among them; None: as
                many as the model was trained with. Every later given frame gets one more, up to
                `slots.MOST_GIVEN`.
            policy: name of a replacement rule, or the rule itself.
            seed: of the random rules.

        Raises:
            StremnError: another model, K below 1, an unknown device, precision or rule.
        """
        given = model if isinstance(model, SamModel) else of_network(model)
        slots = given.memories if memory_slots is None else memory_slots
        self.memory_slots = checked_slots(slots)
        self.seed = whole_number(seed, "seed", 0, 2**40)
        self.policy_name = policy if isinstance(policy, str) else type(policy).__name__
        self.policy = sam_rule(policy, self.seed)
        self.device = pick_device(device)
        self.dtype = pick_precision(precision, self.device)
        self.source = given.placed(self.device, self.dtype)
        self.model = reading_slots(self.source.network)
        self.frame = -1
        self._memories: dict[int, ObjectSlots] = {}
        self._frame_size: tuple[int, int] | None = None
        self._shape: tuple[int, ...] | None = None
        self._places: Tensor | None = None
        self._features: Any = None
        self._logits: dict[int, Tensor] = {}
        self._truth: Int[np.ndarray, "h w"] | None = None
        self._decisions: dict[int, Decision] = {}
        self._calls = GuardedCalls(_REMEMBERED)

    @classmethod
    def from_pretrained(cls, source: str | Path | SamModel, **options: Any) -> Self:
        """Open a session on a hub id, a folder of transformers, or a loaded model."""
        return cls(source if isinstance(source, SamModel) else load_sam(source), **options)

    # ------------------------------------------------------------ frame by frame

    @guarded
    def step(
        self,
        frame: FrameInput,
        mask: MaskInput | None = None,
        *,
        prompts: Mapping[int, Prompt] | None = None,
    ) -> StepResult:
        """Segment the next frame; a mask or a prompt says where objects are in it.

        A new id is a new object from this frame on; a known one is corrected. Others stay.

        Args:
            frame: "height width 3" RGB uint8 array, PIL image, or tensor (channels first or last).
            mask: label map of the frame's size with any ids, 0 for background.
            prompts: boxes and clicks by id, for the model's own prompt encoder.

        Raises:
            StremnError: nothing to follow yet and neither mask nor prompt; a mask or prompt that
                does not fit; a frame of another size. The session is then as before.
        """
        image = as_rgb(frame)
        size = (image.shape[0], image.shape[1])
        where = self._prompts(mask, prompts, size)
        if self.frame < 0 and not where:
            raise StremnError(
                "There is no object to follow: give a mask or a prompt with the first frame, as in "
                "step(frame, mask)."
            )
        self._frame_size = size_of(image, self._frame_size, self.frame + 1)
        self.frame += 1
        self._decisions, self._logits, self._features = {}, {}, None
        self._truth = _over(None, mask, size)
        ids = (*self._memories, *(i for i in where if i not in self._memories))
        if ids:
            pixels = self.source.pixels(torch.from_numpy(image).to(self.device), self.dtype)
            self._look(ids, where, pixels=pixels)
        return self._result()

    @guarded
    def add_object(
        self, mask: MaskInput | None = None, *, prompts: Mapping[int, Prompt] | None = None
    ) -> StepResult:
        """Add or correct objects in the latest frame; return its new result.

        Raises:
            StremnError: no frame to look at, or the mask or prompt does not fit it.
        """
        if self._features is None or self._frame_size is None:
            raise StremnError(
                "add_object needs a frame with objects to look at, and this session has none: "
                "give the mask with the next frame, as in step(frame, mask)."
            )
        where = self._prompts(mask, prompts, self._frame_size)
        if not where:
            raise StremnError("add_object needs a mask or a prompt.")
        self._decisions, self._logits = dict(self._decisions), dict(self._logits)
        self._truth = _over(_without(self._truth, where), mask, self._frame_size)
        self._look(tuple(where), where, features=self._features)
        return self._result()

    @guarded
    def remove_object(self, object_id: int) -> None:
        """Stop following an object and free its memory.

        Raises:
            StremnError: no such object.
        """
        name = self.ids[index_of(object_id, self.ids)]
        self._memories = {i: x for i, x in self._memories.items() if i != name}
        self._logits = {i: x for i, x in self._logits.items() if i != name}
        self._decisions = {i: x for i, x in self._decisions.items() if i != name}
        self._truth = _without(self._truth, [name])

    @guarded
    def pin(self, frame: int, object_id: int | None = None, *, pinned: bool = True) -> None:
        """Pin the templates of a frame so that no rule evicts them, or unpin them.

        Raises:
            StremnError: no such object, or no slot holds that frame.
        """
        frame = whole_number(frame, "frame", 0, 2**62)
        names = self.ids if object_id is None else [self.ids[index_of(object_id, self.ids)]]
        held = {i: m for i in names if (m := self._memories[i]).state.holds(frame, [0])}
        if not held:
            raise StremnError(
                f"No slot holds frame {frame}. result.memory lists the frames that are held."
            )
        self._memories = self._memories | {
            i: replace(m, state=m.state.with_pinned(frame, [0], pinned)) for i, m in held.items()
        }

    @property
    def ids(self) -> tuple[int, ...]:
        """The objects followed."""
        return tuple(self._memories)

    @property
    def memory(self) -> MemoryReport:
        """Content of the memory now, and what the latest call replaced."""
        reports = [memory_report((i,), x.state, self._decisions) for i, x in self._memories.items()]
        return MemoryReport(tuple(r.objects[0] for r in reports), self.memory_bytes)

    @property
    def memory_bytes(self) -> int:
        """Bytes of all that is kept of past frames."""
        shared = 0 if self._places is None else self._places.nbytes
        return shared + sum(memory.nbytes for memory in self._memories.values())

    # ------------------------------------------------------------ the parts of a step

    def _look(
        self,
        ids: tuple[int, ...],
        where: Prompts,
        *,
        pixels: Float[Tensor, "1 3 h w"] | None = None,
        features: Any = None,
    ) -> None:
        past = Past(tuple(self._memories.get(i) for i in ids), self._shape, self._places)
        seen = look(self.model, self.frame, ids, past, where, pixels=pixels, features=features)
        self._shape, self._features = seen.shape, seen.features
        if self._places is None:  # a copy: of several objects at once it is a view of all
            self._places = seen.places.clone()
        self._memorize(ids, seen, given=set(where))

    def _memorize(self, ids: Sequence[int], seen: Seen, given: set[int]) -> None:
        after = dict(self._memories)
        for name, encoded, logits in zip(ids, seen.encoded, seen.logits, strict=True):
            memory = after.get(name) or ObjectSlots.empty(self.memory_slots, encoded)
            held = memory.state.written_at[0]
            after[name], choice = memory.remember(
                encoded,
                self.frame,
                self._checked_rule,
                given=name in given,
                pointers=self.source.pointers - 1,
            )
            self._decisions[name] = Decision(held, choice)
            self._logits[name] = logits
        self._memories = after

    def _checked_rule(self, state: MemoryState, new: Template, evictable: Tensor) -> Choice:
        return checked(self.policy(state, new, evictable), state, evictable)

    def _prompts(
        self,
        mask: MaskInput | None,
        prompts: Mapping[int, Prompt] | None,
        size: tuple[int, int],
    ) -> dict[int, dict[str, Tensor]]:
        where: dict[int, dict[str, Tensor]] = {}
        if mask is not None:
            given = given_masks(mask, size)
            for name in given.ids:
                where[name] = mask_prompt(given.labels == name, self.source.size, self.device)
        for key, prompt in (prompts or {}).items():
            name = whole_number(key, "object_id", 1, MAX_ID)
            if name in where:
                raise StremnError(f"Object {name} has a mask and a prompt: give one of them.")
            prompt.check(size)
            where[name] = prompt.tensors(size, self.source.size, self.device)
        return where

    def _result(self) -> StepResult:
        assert self._frame_size is not None  # called after a frame
        height, width = self._frame_size
        probabilities = np.ones((1, height, width), np.float32)
        if self._memories:
            logits = torch.stack([self._logits[i] for i in self.ids])[None]
            whole = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
            objects = whole[0].sigmoid().cpu().numpy()
            probabilities = np.concatenate([1 - objects.max(0, keepdims=True), objects])
        labels = self._labels(probabilities)
        size = WorkingSize(height, width, (height, width), (height, width))
        return StepResult(self.frame, labels, self.ids, self.memory, probabilities, size)

    def _labels(self, probabilities: Float[np.ndarray, "c height width"]) -> Labels:
        """Return the likeliest object of each pixel; those of a given mask exactly as given."""
        kind = np.uint16 if max(self.ids, default=0) > 255 else np.uint8
        names = np.array([0, *self.ids], dtype=kind)
        if self._truth is None:
            return names[probabilities.argmax(0)]
        rest = ~np.isin(names, self._truth[self._truth > 0])
        likeliest = names[rest][probabilities[rest].argmax(0)]
        return np.where(self._truth > 0, self._truth, likeliest).astype(kind)

    # ------------------------------------------------------------ saving

    @guarded
    def save(self, path: str | Path) -> None:
        """Save the session's state, so that `load` continues bit for bit.

        Raises:
            StremnError: the file cannot be written.
        """
        settings = {
            "memory_slots": self.memory_slots,
            "policy": self.policy_name,
            "seed": self.seed,
            "precision": str(self.dtype).removeprefix("torch."),
        }
        write_sam(
            Path(path),
            SavedSam(
                settings,
                fingerprint(self.model),
                self.frame,
                self._frame_size,
                self._memories,
                self._shape,
                self._places,
            ),
        )

    @classmethod
    def load(
        cls,
        path: str | Path,
        model: SamModel | nn.Module | str | Path,
        *,
        device: str = "auto",
        policy: UpdatePolicy | None = None,
    ) -> Self:
        """Load a saved session; it continues bit for bit.

        Args:
            path: file that `save` wrote.
            model: the model the session ran on, or where to load it from.
            device: as in `SamSession`.
            policy: the rule, if it was given as an object.

        Raises:
            StremnError: no session in the file, or one of another model.
        """
        saved = read_sam(Path(path), pick_device(device))
        if isinstance(model, str | Path):
            model = load_sam(model)
        own_policy = {} if policy is None else {"policy": policy}
        session = cls(model, device=device, **saved.settings | own_policy)
        if fingerprint(session.model) != saved.weights:
            raise StremnError(
                f"{path} was saved with other weights than those given now. Load it with the model "
                "it was made with."
            )
        session.frame, session._frame_size = saved.frame, saved.frame_size
        session._memories, session._shape = saved.memories, saved.shape
        session._places = saved.places
        return session


def _over(
    before: Int[np.ndarray, "h w"] | None, mask: MaskInput | None, size: tuple[int, int]
) -> Int[np.ndarray, "h w"] | None:
    """Return the masks given of a frame: those of before, with a new one over them."""
    if mask is None:
        return before
    new = given_masks(mask, size).labels.astype(np.int32)
    return new if before is None else np.where(new > 0, new, before)


def _without(
    truth: Int[np.ndarray, "h w"] | None, ids: Iterable[int]
) -> Int[np.ndarray, "h w"] | None:
    """Return the masks given of a frame without those of some objects."""
    return None if truth is None else np.where(np.isin(truth, list(ids)), 0, truth)
