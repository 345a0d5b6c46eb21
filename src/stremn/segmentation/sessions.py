"""Streaming segmentation: frames in, label maps out, one at a time.

Sessions are the only objects with state. Everything they do to the memory goes through the
same `memorize` and `recall` that training uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int32, UInt8
from torch import Tensor

from stremn.core.arguments import whole_number
from stremn.core.guarded_calls import GuardedCalls, guarded
from stremn.core.hardware import keep_freed_memory, pick_device, pick_precision
from stremn.core.weights import fingerprint
from stremn.errors import StremnError
from stremn.media.masks import LabelMap
from stremn.memory.choices import CheckedPolicy, UpdatePolicy
from stremn.memory.policies import Append
from stremn.moved import moved_names
from stremn.networks.defaults import PAPER, SHIPPED
from stremn.networks.inference import for_inference, placed
from stremn.networks.model import Query, STReMN
from stremn.networks.pretrained import Pretrained
from stremn.networks.windows import windows_that_pay
from stremn.networks.working_size import WorkingSize
from stremn.segmentation import reports, saved_sessions
from stremn.segmentation import session_options as limits
from stremn.segmentation.aggregation import (
    given_up,
    likeliest,
    renumbered,
    with_label_map,
    without_layers,
)
from stremn.segmentation.inputs import (
    FrameInput,
    MaskInput,
    as_planes,
    as_rgb,
    given_masks,
    index_of,
    size_of,
)
from stremn.segmentation.postprocess import distant_regions
from stremn.segmentation.reports import Decision, MemoryReport, StepResult, decisions
from stremn.segmentation.saved_sessions import SavedSession
from stremn.segmentation.tracks import Track

_REMEMBERED = ("frame", "ids", "track", "_frame_size", "_layers", "_latest", "_decisions")
"""What a call may change; a call that is refused or fails leaves all of it as it was."""


class SegmentationSession:
    """Follows objects through a video, given masks of some frames.

        session = SegmentationSession.from_pretrained("small")
        result = session.step(frame, mask)
        for frame in frames:
            result = session.step(frame)

    Memory does not grow with the video: each object has K slots.
    """

    def __init__(
        self,
        model: STReMN,
        *,
        device: str = "auto",
        precision: str = "auto",
        memory_slots: int = SHIPPED.memory_slots,
        policy: str | UpdatePolicy = SHIPPED.policy,
        size: int = SHIPPED.size,
        seed: int = 0,
        reach: float | None = SHIPPED.reach,
        every: int = PAPER.every,
    ) -> None:
        """Start with no objects.

        Args:
            model: the network; copied if it is in training mode, on another device or of another
                precision.
            device: "auto", "cpu", "cuda", "cuda:1", "mps", ...
            precision: "auto" (bfloat16 where the hardware has it), "float32" or "bfloat16".
            memory_slots: K, number of templates per object, including that of the given mask.
            policy: name of a replacement rule, or the rule itself.
            size: working resolution: shorter side in pixels; small frames are at most doubled.
            seed: of the random rules.
            reach: search window: how far an object may move from one frame to the next, in units
                of its size (square root of its area). Regions farther away are removed before the
                frame is memorized (Sec 4.1.1), and only the window is read, which saves time. A
                lost object is searched for in the whole frame. None or inf: no limit.
            every: memorize frames 0, n, 2n, ... and those with a mask. 1 memorizes all, as in the
                paper. `from_pretrained` takes 2 for the shipped weights, 5 for STM and STCN.

        Raises:
            StremnError: K or `every` below 1, size below 64, a negative reach, an unknown device,
                precision or rule, a model that is no network.
        """
        limits.check_model(model)
        checked = limits.checked_numbers(memory_slots, size, every, reach)
        self.memory_slots, self.size, self.every, self.reach = checked
        self.seed = whole_number(seed, "seed", 0, limits.LARGEST_SEED)
        self.device = pick_device(device)
        self.dtype = pick_precision(precision, self.device)
        self.model = placed(model, self.device, self.dtype)
        self._fast = for_inference(self.model)
        keep_freed_memory()
        self.policy_name = policy if isinstance(policy, str) else type(policy).__name__
        self.policy = limits.resolved_policy(policy, self.model, seed)
        self.growth = limits.GROWTH if isinstance(self.policy, Append) else 0
        self.frame = -1
        self.ids: tuple[int, ...] = ()
        self.track: Track | None = None
        self._frame_size: tuple[int, int] | None = None
        self._layers: Int32[np.ndarray, "h w"] | None = None
        self._latest: tuple[Query, Tensor, WorkingSize] | None = None
        self._decisions: dict[int, Decision] = {}
        self._calls = GuardedCalls(_REMEMBERED)

    @classmethod
    def from_pretrained(cls, source: str | Path | Pretrained = "small", **options: Any) -> Self:
        """Open a session on a preset's name, a weights file, a folder, a hub id, or a loaded model.

        `options` are those of `SegmentationSession`; its defaults are the model's own
        (`SegmentationConfig.usual`).
        """
        if not isinstance(source, Pretrained):
            source = Pretrained.from_pretrained(source)
        return cls(source.model, **asdict(source.config.usual) | options)

    @guarded
    def step(self, frame: FrameInput, mask: MaskInput | None = None) -> StepResult:
        """Segment the next frame; `mask` adds or corrects objects.

        A new id in `mask` adds an object from this frame on; a known id is corrected. Objects that
        are not in the mask are segmented as usual. Without objects, all pixels are background.

        Args:
            frame: "height width 3" RGB uint8 array, PIL image, or tensor (channels first or last).
            mask: label map of the frame's size with any ids, 0 for background.

        Raises:
            StremnError: the first frame without a mask; a mask without objects or of another
                size; a frame of another size than those before. After this and any other error,
                also one of a custom rule, the session is as before the call.
        """
        image = as_rgb(frame)
        given = None if mask is None else given_masks(mask, (image.shape[0], image.shape[1]))
        if self.frame < 0 and given is None:
            raise StremnError(
                "There is no object to follow: give a mask with the first frame, as in "
                "step(frame, mask)."
            )
        self._frame_size = size_of(image, self._frame_size, self.frame + 1)
        size = WorkingSize.of(image.shape[0], image.shape[1], self.size, self.model.margins)
        pixels = self.as_tensor(size.inward_image(image))
        query = self._fast.encode_query(size.paint_margins(pixels))
        probabilities, layers = self._recall(query, size)
        self.frame += 1
        self._decisions = {}
        self._write(query, probabilities, given, size, layers)
        return self._result()

    @guarded
    def add_object(self, mask: MaskInput) -> StepResult:
        """Add or correct objects in the latest frame; return its new result.

        Raises:
            StremnError: no frame has been given yet, or the mask does not fit it.
        """
        if self._latest is None:
            raise StremnError(
                "add_object needs a frame, but this session has segmented none since it was "
                "opened. Give the mask with the next frame, as in step(frame, mask)."
            )
        query, probabilities, size = self._latest
        given = given_masks(mask, (size.height, size.width))
        self._decisions = dict(self._decisions)
        self._write(query, probabilities, given, size, only=set(given.ids))
        return self._result()

    @guarded
    def remove_object(self, object_id: int) -> None:
        """Stop following an object and free its memory.

        Raises:
            StremnError: no such object.
        """
        place = index_of(object_id, self.ids)
        removed = self.ids[place]
        kept = [i for i in range(len(self.ids)) if i != place]
        self.ids = tuple(self.ids[i] for i in kept)
        self._decisions = {name: d for name, d in self._decisions.items() if name != removed}
        if self._latest is not None:
            query, probabilities, size = self._latest
            self._latest = (query, without_layers(probabilities, kept), size)
        if self._layers is not None:
            self._layers = renumbered(self._layers, kept) if kept else None
        if self.track is not None:
            entries = torch.tensor(kept, dtype=torch.int64, device=self.device)
            self.track = Track.of_one_video(self.track.select(entries).state) if kept else None

    @guarded
    def pin(self, frame: int, object_id: int | None = None, *, pinned: bool = True) -> None:
        """Pin the templates of a frame so that no rule evicts them, or unpin them.

        Args:
            frame: index of a frame that is in the memory now.
            object_id: only of this object; None: of all.
            pinned: False makes the templates evictable again.

        Raises:
            StremnError: no such object, or no slot holds that frame.
        """
        frame = limits.checked_pin(frame, pinned)
        places = range(len(self.ids)) if object_id is None else [index_of(object_id, self.ids)]
        if self.track is None or not self.track.state.holds(frame, places):
            raise StremnError(
                f"No slot holds frame {frame}. result.memory lists the frames that are held."
            )
        self.track = replace(self.track, state=self.track.state.with_pinned(frame, places, pinned))

    @property
    @guarded
    def memory(self) -> MemoryReport:
        """Content of the memory now, and what the latest call replaced.

        Waits for the end of a call in another thread.
        """
        return self._report()

    @property
    def memory_bytes(self) -> int:
        """Bytes of the memory of all objects."""
        return 0 if self.track is None else self.track.state.nbytes

    def _report(self) -> MemoryReport:
        state = None if self.track is None else self.track.state
        return reports.memory_report(self.ids, state, self._decisions)

    def as_tensor(self, image: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "1 3 h w"]:
        """Return a frame of the working resolution in [0, 1], as the network takes it."""
        return as_planes(image, self.device, self.dtype)

    def _recall(
        self, query: Query, size: WorkingSize
    ) -> tuple[Float[Tensor, "1 c h w"], Int32[np.ndarray, "h w"] | None]:
        """Segment the frame; before there are objects, all is background.

        With a reach also returns the likeliest layer of each pixel.
        """
        if self.track is None:
            return torch.ones(1, 1, *size.padded, device=self.device), None
        if self.reach is None or self._layers is None:
            return size.empty_margins(self.track.segment(self._fast, query)), None
        probabilities, layers = self.track.search(self._fast, query, self._layers, self.reach)
        far = distant_regions(layers, self._layers, self.reach)
        if far.any():
            probabilities = given_up(probabilities, layers, far)
            layers[far] = 0
        return size.empty_margins(probabilities), layers

    def _write(
        self,
        query: Query,
        probabilities: Float[Tensor, "1 c h w"],
        given: LabelMap | None,
        size: WorkingSize,
        layers: Int32[np.ndarray, "h w"] | None = None,
        only: set[int] | None = None,
    ) -> None:
        """Memorize a frame: objects followed (or `only` some), then the new ones.

        Between frames that are memorized, only objects that are corrected are. `layers` is the
        likeliest layer of each pixel, if that is known.
        """
        old = self.ids
        corrected: set[int] = set()
        if given is not None:
            layers = None  # the mask may put objects anywhere
            corrected = set(given.ids) & set(old)
            self.ids = (*old, *(i for i in given.ids if i not in old))
            probabilities = with_label_map(probabilities, given, self.ids, size)
        if only is None and self.frame % self.every:
            only = corrected
        places = [i for i, name in enumerate(old) if only is None or name in only]
        if places:
            pin = [old[i] in corrected for i in places]
            self._memorize_known(query, probabilities, places, pin, layers)
        if len(self.ids) > len(old):
            self._memorize_new(query, probabilities, old)
        self._latest = (query, probabilities, size)
        if self.reach is not None:
            self._layers = likeliest(probabilities[0]) if layers is None else layers

    def _memorize_known(
        self,
        query: Query,
        probabilities: Tensor,
        places: Sequence[int],
        pin: Sequence[bool],
        layers: Int32[np.ndarray, "h w"] | None,
    ) -> None:
        assert self.track is not None  # called with objects only
        count, grid = len(self.track.label), (query.key.shape[1], query.key.shape[2])
        # With new objects more can fail after this, so that the old memory must stay.
        changing = self._calls.changing if len(places) == count == len(self.ids) else None
        windows = None if layers is None else windows_that_pay(layers, count, grid)
        policy = CheckedPolicy(self.policy, changing)
        self.track, held, choice = self.track.memorize_some(
            self._fast, query, probabilities, self.frame, policy, places, pin, windows,
            in_place=changing is not None,
        )  # fmt: skip
        self._decisions |= decisions([self.ids[i] for i in places], held, choice)

    def _memorize_new(self, query: Query, probabilities: Tensor, old: Sequence[int]) -> None:
        labels = torch.arange(len(old) + 1, len(self.ids) + 1, device=self.device)
        video, size = torch.zeros_like(labels), (query.frames.shape[-2], query.frames.shape[-1])
        track = Track.empty(self.model, video, labels, self.memory_slots, size, self.growth)
        held = track.state.written_at
        track, choice = track.memorize(
            self._fast, query, probabilities, frame=self.frame,
            policy=CheckedPolicy(self.policy), pin=True,
        )  # fmt: skip
        self.track = track if self.track is None else self.track.join(track)
        self._decisions |= decisions(self.ids[len(old) :], held, choice)

    def _result(self) -> StepResult:
        assert self._latest is not None  # called after a frame
        _, probabilities, size = self._latest
        return reports.step_result(self.frame, self.ids, self._report(), probabilities, size)

    @guarded
    def save(self, path: str | Path) -> None:
        """Save the session's state, so that `load` continues bit for bit.

        Raises:
            StremnError: the file cannot be written.
        """
        kept = ("memory_slots", "size", "seed", "reach", "every")
        saved = SavedSession(
            settings={name: getattr(self, name) for name in kept}
            | {"policy": self.policy_name, "precision": str(self.dtype).removeprefix("torch.")},
            weights=fingerprint(self.model),
            frame=self.frame,
            ids=self.ids,
            frame_size=self._frame_size,
            state=None if self.track is None else self.track.state,
            layers=self._layers,
        )
        saved_sessions.write_session(Path(path), saved)

    @classmethod
    def load(
        cls,
        path: str | Path,
        model: STReMN | Pretrained | str | Path = "small",
        *,
        device: str = "auto",
        policy: UpdatePolicy | None = None,
    ) -> Self:
        """Load a saved session; it continues bit for bit.

        Args:
            path: file that `save` wrote.
            model: the network the session ran on, or where to load it from.
            device: as in `SegmentationSession`.
            policy: the rule, if it was given as an object.

        Raises:
            StremnError: no session in the file, one of another model, or one whose rule was given
                as an object and is not given again.
        """
        saved = saved_sessions.read_session(Path(path), pick_device(device))
        if isinstance(model, str | Path):
            model = Pretrained.from_pretrained(model)
        if isinstance(model, Pretrained):
            model = model.model
        if policy is None:
            saved_sessions.check_rule(saved, model, Path(path))
        own_policy = {} if policy is None else {"policy": policy}
        session = cls(model, device=device, **saved.settings | own_policy)
        saved_sessions.check_belongs(saved, session.model, Path(path), grows=session.growth > 0)
        session.frame, session.ids = saved.frame, saved.ids
        session._frame_size, session._layers = saved.frame_size, saved.layers
        if saved.state is not None:
            session.track = Track.of_one_video(replace(saved.state, growth=session.growth))
        return session


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
