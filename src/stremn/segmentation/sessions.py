"""Streaming segmentation: frames in, label maps out, one at a time, for as long as there are any.

Sessions are the only objects that remember. Everything they do to the memory goes through the
same `memorize` and `recall` that training uses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32, UInt8
from torch import Tensor
from torch.nn import functional as F

from stremn.core.arguments import real_number, whole_number
from stremn.core.guarded_calls import GuardedCalls
from stremn.core.hardware import keep_freed_memory, pick_device, pick_precision
from stremn.core.weights import fingerprint
from stremn.errors import StremnError
from stremn.media.mask_codes import MAX_ID
from stremn.media.masks import LabelMap
from stremn.memory.operations import Choice, MemoryState, Template, UpdatePolicy, checked
from stremn.memory.policies import POLICIES, Append, build_policy
from stremn.networks.backbones import STRIDE
from stremn.networks.inference import for_inference, placed
from stremn.networks.model import Query, STReMN
from stremn.networks.pretrained import Pretrained
from stremn.networks.windows import Window, windows_that_pay
from stremn.networks.working_size import WorkingSize
from stremn.segmentation.inputs import FrameInput, MaskInput, as_rgb, given_masks
from stremn.segmentation.postprocess import distant_regions
from stremn.segmentation.reports import Decision, MemoryReport, StepResult, memory_report
from stremn.segmentation.saved_sessions import SavedSession, read_session, write_session
from stremn.segmentation.tracks import (
    Track,
    given_up,
    label_map_of,
    likeliest,
    look,
    memorize,
    segment,
    start,
    with_given,
)

SHIPPED_POLICY = "evidence"
"""The rule that the shipped weights do best with; "learned" is the paper's."""

MOST_SLOTS = 65_536
"""K, at most: more is a mistake, and no machine has the memory."""

LARGEST_SIZE = 8_192
"""Working size, at most, in pixels."""

LARGEST_SEED = 2**40
"""Seed of the random rules, at most: PyTorch's generators take 64 bits."""

LARGEST_FRAME = 2**62
"""Index of a frame, at most."""

_REMEMBERED = ("frame", "ids", "track", "_frame_size", "_where", "_latest", "_decisions")
"""What a call may change; a call that is refused or fails leaves all of it as it was."""

GROWTH = 8
"""Slots that STM's growing memory ("append") gains when all are taken."""


def checked_numbers(
    memory_slots: int, size: int, every: int, reach: float | None
) -> tuple[int, int, int, float | None]:
    """Return K, size, `every` and reach of a session as it takes them.

    Raises:
        StremnError: one of them is out of its range, or no number.
    """
    slots = whole_number(memory_slots, "memory_slots (K)", 1, MOST_SLOTS, "The paper uses 6.")
    size = whole_number(size, "size", 64, LARGEST_SIZE, "It is in pixels; 432 is usual.")
    every = whole_number(every, "every", 1, LARGEST_FRAME, "1 memorizes all frames.")
    if reach is not None:
        reach = real_number(reach, "reach", "0.5 is usual; None has no limit.")
        if reach < 0:
            raise StremnError(
                f"reach must be 0 or more (in sizes of the object) or None, got {reach}. "
                "0.5 is usual."
            )
    return slots, size, every, reach


def check_options(
    *,
    memory_slots: int,
    size: int,
    every: int,
    reach: float | None,
    policy: str,
    device: str,
    precision: str,
) -> None:
    """Refuse options that no session takes, before a model is loaded for it.

    Raises:
        StremnError: as `SegmentationSession` does.
    """
    checked_numbers(memory_slots, size, every, reach)
    if policy not in POLICIES:
        build_policy(policy)
    pick_precision(precision, pick_device(device))


class SegmentationSession:
    """Follows objects through a video, given masks of some frames.

        session = SegmentationSession.from_pretrained("small")
        result = session.step(frame, mask)
        for frame in frames:
            result = session.step(frame)

    Memory does not grow with the video: K slots per object, whatever the length.
    """

    def __init__(
        self,
        model: STReMN,
        *,
        device: str = "auto",
        precision: str = "auto",
        memory_slots: int = 6,
        policy: str | UpdatePolicy = "learned",
        size: int = 480,
        seed: int = 0,
        reach: float | None = None,
        every: int = 1,
    ) -> None:
        """Start with no objects.

        Args:
            model: the network; copied if it is in training, elsewhere or of another precision.
            device: "auto", "cpu", "cuda", "cuda:1", "mps", ...
            precision: "auto" (bfloat16 where the hardware has it), "float32" or "bfloat16".
            memory_slots: K, templates kept of each object; the first is the given mask's.
            policy: name of a replacement rule, or the rule itself.
            size: shorter side in pixels that frames are brought to; small ones at most doubled.
            seed: of the random rules.
            reach: how far an object may be from where it was in the previous frame, in units of
                its size (square root of its area). False positives that are farther away are
                removed before the frame is memorized (Sec 4.1.1), and what is farther is not even
                read, which saves time; an object that is lost is looked for everywhere. None,
                or inf, removes nothing and always reads the whole frame.
            every: memorize frames 0, n, 2n, ... and those with a mask; 1 is all, as in the paper.
                STM and STCN were made for every fifth.

        Raises:
            StremnError: K or `every` below 1, size below 64, a negative reach, an unknown device,
                precision or rule.
        """
        memory_slots, size, every, reach = checked_numbers(memory_slots, size, every, reach)
        seed = whole_number(seed, "seed", 0, LARGEST_SEED)
        if not isinstance(policy, str) and not callable(policy):
            raise StremnError(
                f"policy must be the name of a rule or a rule, got {type(policy).__name__}. Choose "
                f"one of: {', '.join(POLICIES)}."
            )
        self.device = pick_device(device)
        self.dtype = pick_precision(precision, self.device)
        self.model = placed(model, self.device, self.dtype)
        self._fast = for_inference(self.model)
        keep_freed_memory()
        self.memory_slots = memory_slots
        self.size = size
        self.seed = seed
        self.every = every
        self.reach = None if reach == math.inf else reach
        self.policy_name = policy if isinstance(policy, str) else type(policy).__name__
        self.policy = self._resolve(policy)
        self.growth = GROWTH if isinstance(self.policy, Append) else 0
        self.frame = -1
        self.ids: tuple[int, ...] = ()
        self.track: Track | None = None
        self._frame_size: tuple[int, int] | None = None
        self._where: Int32[np.ndarray, "h w"] | None = None
        self._latest: tuple[Query, Tensor, WorkingSize] | None = None
        self._decisions: dict[int, Decision] = {}
        self._calls = GuardedCalls(_REMEMBERED)

    @classmethod
    def from_pretrained(cls, source: str | Path | Pretrained = "small", **options: Any) -> Self:
        """Open a session on a preset's name, a weights file, a folder, a hub id, or a loaded model.

        `options` are those of `SegmentationSession`; the rule is `SHIPPED_POLICY`, and size, reach
        and `every` are the model's `SegmentationConfig.usual`, unless they say otherwise.
        """
        if not isinstance(source, Pretrained):
            source = Pretrained.from_pretrained(source)
        usual: dict[str, Any] = {"policy": SHIPPED_POLICY, **asdict(source.config.usual)}
        return cls(source.model, **usual | options)

    def _resolve(self, policy: str | UpdatePolicy) -> UpdatePolicy:
        if not isinstance(policy, str):
            return policy
        if policy in self.model.policies:
            return self.model.policies[policy]
        return build_policy(policy, self.seed)

    # ------------------------------------------------------------ frame by frame

    def step(self, frame: FrameInput, mask: MaskInput | None = None) -> StepResult:
        """Segment the next frame; with `mask`, take that as the truth for the ids in it.

        A new id is a new object, from this frame on; a known one is corrected. Objects that the
        mask does not show go on as they are. Once all objects are removed, all is background.

        Args:
            frame: "height width 3" RGB uint8 array, PIL image, or tensor (channels first or last).
            mask: label map of the frame's size with any ids, 0 for background.

        Raises:
            StremnError: nothing to follow yet and no mask; a mask without object or of another
                size; a frame of another size than those before. The session is then as before,
                as it is after any other error, a rule's own among them.
        """
        with self._calls.call(self), torch.inference_mode():
            return self._step(frame, mask)

    def _step(self, frame: FrameInput, mask: MaskInput | None) -> StepResult:
        image = as_rgb(frame)
        given = None if mask is None else given_masks(mask, (image.shape[0], image.shape[1]))
        if self.frame < 0 and given is None:
            raise StremnError(
                "There is nothing to follow yet: give a mask with the first frame, as in "
                "step(frame, mask)."
            )
        self._check_size(image)
        size = self.working_size(image)
        pixels = self.as_tensor(size.inward_image(image))
        query = self._fast.encode_query(size.paint_margins(pixels))
        shares, where = self._recall(query, size)
        self.frame += 1
        self._decisions = {}
        self._write(query, shares, given, size, where)
        return self._result()

    def add_object(self, mask: MaskInput) -> StepResult:
        """Add or correct objects on the frame given last; returns that frame's new result.

        Raises:
            StremnError: no frame has been given yet, or the mask does not fit it.
        """
        with self._calls.call(self), torch.inference_mode():
            return self._add_object(mask)

    def _add_object(self, mask: MaskInput) -> StepResult:
        if self._latest is None:
            raise StremnError(
                "add_object needs a frame to look at, and this session was given none since it "
                "was opened: give the mask with the next frame, as in step(frame, mask)."
            )
        query, shares, size = self._latest
        given = given_masks(mask, (size.height, size.width))
        self._decisions = dict(self._decisions)
        self._write(query, shares, given, size, only=set(given.ids))
        return self._result()

    def remove_object(self, object_id: int) -> None:
        """Stop following an object and free its memory.

        Raises:
            StremnError: no such object.
        """
        with self._calls.call(self), torch.inference_mode():
            self._remove_object(object_id)

    def _remove_object(self, object_id: int) -> None:
        place = self._place(object_id)
        removed = self.ids[place]
        kept = [i for i in range(len(self.ids)) if i != place]
        self.ids = tuple(self.ids[i] for i in kept)
        if self._latest is not None:
            query, shares, size = self._latest
            rest = shares[:, [0, *(i + 1 for i in kept)]]
            rest = torch.cat([1 - rest[:, 1:].sum(1, keepdim=True), rest[:, 1:]], 1)
            self._latest = (query, rest, size)
        if self._where is not None:
            new_places = np.zeros(len(self.ids) + 2, np.int32)
            new_places[[i + 1 for i in kept]] = range(1, len(kept) + 1)
            self._where = new_places[self._where]
        self._decisions = {name: d for name, d in self._decisions.items() if name != removed}
        if not kept:
            self.track, self._where = None, None
            return
        assert self.track is not None  # there was an object
        track = self.track.select(torch.tensor(kept, device=self.device))
        self.track = replace(track, label=torch.arange(1, len(kept) + 1, device=self.device))

    def pin(self, frame: int, object_id: int | None = None, *, pinned: bool = True) -> None:
        """Keep what the memory holds of a frame for ever (or, with pinned=False, no longer).

        Args:
            frame: index of a frame that is in the memory now.
            object_id: of this object alone; None for all.
            pinned: False lets the template compete again.

        Raises:
            StremnError: no such object, or no slot holds that frame.
        """
        with self._calls.call(self), torch.inference_mode():
            self._pin(frame, object_id, pinned=pinned)

    def _pin(self, frame: int, object_id: int | None, *, pinned: bool) -> None:
        frame = whole_number(frame, "frame", 0, LARGEST_FRAME)
        if not isinstance(pinned, bool):
            raise StremnError(f"pinned must be True or False, got {type(pinned).__name__}.")
        places = range(len(self.ids)) if object_id is None else [self._place(object_id)]
        held = torch.zeros(0, dtype=torch.bool)
        if self.track is not None:
            rows = torch.zeros(len(self.ids), 1, dtype=torch.bool, device=self.device)
            rows[list(places)] = True
            held = (self.track.state.written_at == frame) & rows
        if self.track is None or not bool(held.any()):
            raise StremnError(
                f"No slot holds frame {frame}. result.memory lists the frames that are held."
            )
        state = self.track.state
        flags = state.pinned | held if pinned else state.pinned & ~held
        self.track = replace(self.track, state=replace(state, pinned=flags))

    @property
    def memory(self) -> MemoryReport:
        """What the memory holds now, and what the latest call replaced."""
        state = None if self.track is None else self.track.state
        return memory_report(self.ids, state, self._decisions)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the memory of all objects."""
        return 0 if self.track is None else self.track.state.nbytes

    # ------------------------------------------------------------ the parts of a step

    def working_size(self, image: UInt8[np.ndarray, "height width 3"]) -> WorkingSize:
        """Return the size at which the network sees a frame."""
        return WorkingSize.of(image.shape[0], image.shape[1], self.size, self.model.margins)

    def as_tensor(self, image: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "1 3 h w"]:
        """Return a frame of the working size as the network takes it, in [0, 1]."""
        pixels = torch.from_numpy(image).to(self.device)
        # Planes, not interleaved: shifting and scaling each color is then ten times as fast.
        return pixels.permute(2, 0, 1)[None].contiguous().to(self.dtype) / 255

    def _check_size(self, image: np.ndarray) -> None:
        size = (image.shape[0], image.shape[1])
        if self._frame_size is not None and size != self._frame_size:
            old = self._frame_size
            raise StremnError(
                f"Frame {self.frame + 1} is {size[1]}x{size[0]} pixels, those before were "
                f"{old[1]}x{old[0]}. Resize it, or start a new session."
            )
        self._frame_size = size

    def _recall(
        self, query: Query, size: WorkingSize
    ) -> tuple[Float[Tensor, "1 c h w"], Int32[np.ndarray, "h w"] | None]:
        """Segment the frame; before there are objects, all is background.

        With a reach also returns the likeliest layer of each pixel.
        """
        if self.track is None:
            return torch.ones(1, 1, *size.padded, device=self.device), None
        if self.reach is None or self._where is None:
            return size.empty_margins(segment(self._fast, self.track, query)), None
        shares, where = look(self._fast, self.track, query, self._where, self.reach)
        far = distant_regions(where, self._where, self.reach)
        if far.any():
            shares = given_up(shares, where, far)
            where[far] = 0
        return size.empty_margins(shares), where

    def _write(
        self,
        query: Query,
        shares: Float[Tensor, "1 c h w"],
        given: LabelMap | None,
        size: WorkingSize,
        where: Int32[np.ndarray, "h w"] | None = None,
        only: set[int] | None = None,
    ) -> None:
        """Memorize a frame: objects followed (or `only` some), then the new ones.

        Between frames that are memorized, only objects that are corrected are. `where` is the
        likeliest layer of each pixel, if that is known.
        """
        old = self.ids
        corrected: set[int] = set()
        if given is not None:
            where = None  # the mask may put objects anywhere
            new = [i for i in given.ids if i not in old]
            corrected = set(given.ids) - set(new)
            self.ids = (*old, *new)
            shares = self._with_given(shares, given, size)
        if only is None and self.frame % self.every:
            only = corrected
        if self.track is not None and (only is None or only & set(old)):
            # With new objects more can fail after this, so that the old memory must stay.
            reuse = len(self.ids) == len(old)
            self._memorize_known(query, shares, old, corrected, only, where, reuse=reuse)
        if len(self.ids) > len(old):
            labels = torch.arange(len(old) + 1, len(self.ids) + 1, device=self.device)
            grid = (query.frames.shape[-2], query.frames.shape[-1])
            fresh = start(
                self.model, torch.zeros_like(labels), labels, self.memory_slots, grid, self.growth
            )
            fresh, choice = self._memorize(fresh, query, shares, pin=True, reuse=False)
            self._note(self.ids[len(old) :], torch.full_like(fresh.state.written_at, -1), choice)
            self.track = fresh if self.track is None else self.track.join(fresh)
        self._latest = (query, shares, size)
        if self.reach is not None:
            self._where = likeliest(shares[0]) if where is None else where

    def _memorize_known(
        self,
        query: Query,
        shares: Tensor,
        old: Sequence[int],
        corrected: set[int],
        only: set[int] | None,
        where: Int32[np.ndarray, "h w"] | None,
        *,
        reuse: bool,
    ) -> None:
        assert self.track is not None  # called with objects only
        places = [i for i, name in enumerate(old) if only is None or name in only]
        entries = torch.tensor(places, device=self.device)
        track = self.track if len(places) == len(old) else self.track.select(entries)
        wanted = torch.tensor([old[i] in corrected for i in places], device=self.device)
        # The latest frame needs a slot too, so that not all may be pinned.
        room = track.state.pinned.sum(1) < track.state.slots - 1
        held = track.state.written_at
        grid = (query.key.shape[1], query.key.shape[2])
        windows = None if where is None else windows_that_pay(where, len(old), grid)
        track, choice = self._memorize(
            track, query, shares, pin=wanted & room, windows=windows, reuse=reuse
        )
        self._note([old[i] for i in places], held, choice)
        if len(places) < len(old):
            others = [i for i in range(len(old)) if i not in places]
            rest = self.track.select(torch.tensor(others, device=self.device))
            track = rest.join(track)
            order = torch.tensor([*others, *places], device=self.device).argsort()
            track = track.select(order)
        self.track = track

    def _memorize(
        self,
        track: Track,
        query: Query,
        shares: Tensor,
        pin: bool | Bool[Tensor, " n"],
        windows: Sequence[Window] | None = None,
        *,
        reuse: bool,
    ) -> tuple[Track, Choice]:
        def rule(state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
            choice = checked(self.policy(state, new, evictable), state, evictable)
            if reuse:
                self._calls.changing()  # nobody else holds the session's memory
            return choice

        return memorize(
            self._fast,
            track,
            query,
            shares,
            frame=self.frame,
            policy=rule,
            pin=pin,
            reuse=reuse,
            windows=windows,
        )

    def _with_given(
        self, shares: Float[Tensor, "1 c h w"], given: LabelMap, size: WorkingSize
    ) -> Float[Tensor, "1 c2 h w"]:
        """Put the given masks over what was segmented; `c2` counts the new objects too."""
        layers = np.stack([(given.labels == i).astype(np.float32) for i in given.ids])
        truth = shares.new_zeros(1, len(self.ids), *shares.shape[2:])
        places = [self.ids.index(i) for i in given.ids]
        truth[:, places] = torch.from_numpy(size.inward_shares(layers)).to(truth)
        known = torch.zeros(1, len(self.ids), dtype=torch.bool, device=self.device)
        known[:, places] = True
        new = len(self.ids) + 1 - shares.shape[1]
        return with_given(F.pad(shares, (0, 0, 0, 0, 0, new)), truth, known)

    def _place(self, object_id: int) -> int:
        object_id = whole_number(object_id, "object_id", 1, MAX_ID)
        if object_id not in self.ids:
            known = ", ".join(map(str, self.ids)) or "none"
            raise StremnError(f"There is no object {object_id}. Objects followed now: {known}.")
        return self.ids.index(object_id)

    # ------------------------------------------------------------ what a step reports

    def _note(self, ids: Sequence[int], held: Tensor, choice: Choice) -> None:
        """Keep what the policy decided for each object until the report is made."""
        for row, name in enumerate(ids):
            single = Choice(choice.replace[row : row + 1], choice.scores[row : row + 1])
            self._decisions[name] = Decision(held[row], single)

    def _result(self) -> StepResult:
        assert self._latest is not None  # called after a frame
        _, shares, size = self._latest
        arrays = shares[0].float().cpu().numpy()
        return StepResult(
            self.frame,
            label_map_of(size.outward(arrays), self.ids),
            self.ids,
            self.memory,
            arrays,
            size,
        )

    # ------------------------------------------------------------ saving

    def save(self, path: str | Path) -> None:
        """Write all that the session remembers, so that `load` continues bit for bit.

        Raises:
            StremnError: the file cannot be written.
        """
        with self._calls.call(self):
            self._save(Path(path))

    def _save(self, path: Path) -> None:
        settings = {
            "memory_slots": self.memory_slots,
            "policy": self.policy_name,
            "size": self.size,
            "seed": self.seed,
            "reach": self.reach,
            "every": self.every,
            "precision": str(self.dtype).removeprefix("torch."),
        }
        state = None if self.track is None else self.track.state
        write_session(
            path,
            SavedSession(
                settings,
                fingerprint(self.model),
                self.frame,
                self.ids,
                self._frame_size,
                state,
                self._where,
            ),
        )

    @classmethod
    def load(
        cls,
        path: str | Path,
        model: STReMN | Pretrained | str | Path = "small",
        *,
        device: str = "auto",
        policy: UpdatePolicy | None = None,
    ) -> Self:
        """Go on from a saved session.

        Args:
            path: file that `save` wrote.
            model: the network the session ran on, or where to load it from.
            device: as in `SegmentationSession`.
            policy: the rule, if it was given as an object.

        Raises:
            StremnError: no session in the file, or one of another model.
        """
        saved = read_session(Path(path), pick_device(device))
        if isinstance(model, str | Path):
            model = Pretrained.from_pretrained(model)
        if isinstance(model, Pretrained):
            model = model.model
        own_policy = {} if policy is None else {"policy": policy}
        session = cls(model, device=device, **saved.settings | own_policy)
        if fingerprint(session.model) != saved.weights:
            raise StremnError(
                f"{path} was saved with other weights than those given now. Load it with the model "
                "it was made with."
            )
        session._check_channels(saved, Path(path))
        session._restore(saved)
        return session

    def _check_channels(self, saved: SavedSession, path: Path) -> None:
        """Compare a saved memory with what this session's network would make."""
        if saved.state is None:
            return
        own = self.model.empty_state(1, 1, (STRIDE, STRIDE)).tensors()
        for name, x in saved.state.tensors().items():
            if (x.dtype, x.shape[-1]) != (own[name].dtype, own[name].shape[-1]) and x.dim() > 3:
                raise StremnError(
                    f"{path} is damaged: {name} has {x.shape[-1]} channels of {x.dtype}, but the "
                    f"network makes {own[name].shape[-1]} of {own[name].dtype}."
                )
        if saved.state.slots != self.memory_slots and not self.growth:
            raise StremnError(
                f"{path} is damaged: its memory has {saved.state.slots} slots, expected "
                f"{self.memory_slots}."
            )

    def _restore(self, saved: SavedSession) -> None:
        self.frame, self.ids = saved.frame, saved.ids
        self._frame_size, self._where = saved.frame_size, saved.where
        if saved.state is not None:
            labels = torch.arange(1, len(self.ids) + 1, device=self.device)
            state = replace(saved.state, growth=self.growth)
            self.track = Track(state, torch.zeros_like(labels), labels)
