"""Interface of sessions and models, and how sessions are opened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any, Protocol, TypeVar

from stremn.core.weights import fingerprint
from stremn.media.finding import MaskFinder
from stremn.networks.pretrained import Pretrained, config_of, load_model
from stremn.segmentation.inputs import FrameInput, MaskInput
from stremn.segmentation.reports import MemoryReport, StepResult
from stremn.segmentation.session_options import check_options
from stremn.segmentation.sessions import SegmentationSession


class Session(Protocol):
    """Follows objects through a video, frame by frame; see `SegmentationSession`."""

    frame: int

    @property
    def ids(self) -> tuple[int, ...]:
        """The objects followed."""
        ...

    @property
    def memory(self) -> MemoryReport:
        """Content of the memory."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Bytes of the memory of all objects."""
        ...

    def step(self, frame: FrameInput, mask: MaskInput | None = None) -> StepResult:
        """Segment the next frame; with `mask`, take that as the truth for the ids in it."""
        ...

    def add_object(self, mask: MaskInput) -> StepResult:
        """Add or correct objects on the frame given last."""
        ...

    def remove_object(self, object_id: int) -> None:
        """Stop following an object."""
        ...

    def pin(self, frame: int, object_id: int | None = None, *, pinned: bool = True) -> None:
        """Pin the templates of a frame so that no rule evicts them, or unpin them."""
        ...

    def save(self, path: str | Path) -> None:
        """Save the session's state."""
        ...


@dataclass(frozen=True)
class Asked:
    """Requested options of a session; None is the model's default.

    reach: in object sizes; inf is anywhere.
    seed: of the random rules.
    """

    memory_slots: int | None = None
    policy: str | None = None
    size: int | None = None
    reach: float | None = None
    every: int | None = None
    precision: str = "auto"
    device: str = "auto"
    seed: int = 0

    def settings(self) -> dict[str, str | float]:
        """Return the settings that a resumed run must share, as JSON values."""
        numbers = {
            "memory_slots": self.memory_slots,
            "policy": self.policy,
            "size": self.size,
            "reach": "inf" if self.reach == inf else self.reach,  # JSON has no infinity
            "every": None if self.every == 1 else self.every,
        }
        return {name: value for name, value in numbers.items() if value is not None}


class VideoModel(Protocol):
    """A model by name; its weights are read at first use."""

    @property
    def source(self) -> str:
        """The name."""
        ...

    def settled(self, asked: Asked) -> Asked:
        """Return the options with the model's defaults for those not given.

        Raises:
            StremnError: there is no such model, or it does not support an option.
        """
        ...

    def open(self, asked: Asked) -> Session:
        """Return a new session."""
        ...

    def resume(self, path: Path, asked: Asked) -> Session:
        """Resume a session from a file that `Session.save` wrote."""
        ...

    def finder(self, asked: Asked) -> MaskFinder | None:
        """Return the model's own finder of objects from boxes and clicks; None if it has none."""
        ...

    def check_adaptable(self) -> None:
        """Raise StremnError if the model cannot be adapted to objects, before anything is loaded.

        Raises:
            StremnError: this model's network cannot be.
        """
        ...

    def fingerprint(self) -> int:
        """Return a checksum of the weights."""
        ...

    def pretrained(self) -> Pretrained:
        """Return the network that can be adapted to objects; raises as `check_adaptable`."""
        ...


class OwnModel:
    """A `VideoModel` of this package's own networks."""

    def __init__(self, source: str | Pretrained) -> None:
        """Take a preset's name, a weights file, a folder, a hub id, or a loaded network."""
        self.source = source if isinstance(source, str) else "a loaded network"
        self._given = None if isinstance(source, str) else source

    def settled(self, asked: Asked) -> Asked:
        """Return `asked` with the model's defaults for options not given."""
        usual = (config_of(self.source) if self._given is None else self._given.config).usual
        reach = inf if usual.reach is None else usual.reach
        found = replace(
            asked,
            memory_slots=_or(asked.memory_slots, usual.memory_slots),
            policy=_or(asked.policy, usual.policy),
            size=_or(asked.size, usual.size),
            reach=_or(asked.reach, reach),
            every=_or(asked.every, usual.every),
        )
        options = _options(found)
        del options["seed"]
        check_options(**options, device=asked.device)
        return found

    def open(self, asked: Asked) -> SegmentationSession:
        """Return a new session."""
        options = _options(self.settled(asked))
        return SegmentationSession.from_pretrained(self._loaded, device=asked.device, **options)

    def resume(self, path: Path, asked: Asked) -> SegmentationSession:
        """Resume a session."""
        return SegmentationSession.load(path, self._loaded, device=asked.device)

    def finder(self, asked: Asked) -> None:
        """Return None: these networks take only masks."""

    def check_adaptable(self) -> None:
        """Do nothing: these networks can be adapted."""

    def fingerprint(self) -> int:
        """Return a checksum of the weights."""
        return fingerprint(self._loaded.model)

    def pretrained(self) -> Pretrained:
        """Return the network, which can be adapted to objects."""
        return self._loaded

    @cached_property
    def _loaded(self) -> Pretrained:
        return load_model(self.source) if self._given is None else self._given


T = TypeVar("T")


def _or(asked: T | None, usual: T) -> T:
    return usual if asked is None else asked


def _options(settled: Asked) -> dict[str, Any]:
    """Return settled options as `SegmentationSession` takes them, all but the device."""
    return {
        "memory_slots": settled.memory_slots,
        "policy": settled.policy,
        "size": settled.size,
        "reach": None if settled.reach == inf else settled.reach,
        "every": settled.every,
        "precision": settled.precision,
        "seed": settled.seed,
    }
