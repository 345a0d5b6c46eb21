"""Options of a run on the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from stremn.core.config import Config
from stremn.networks.defaults import SHIPPED

if TYPE_CHECKING:
    from stremn.segmentation.opening import Asked, Session, VideoModel
    from stremn.web.adapting import Adaptation

OFFERED = ("evidence", "learned", "oldest", "random-select", "spread", "most-similar")
"""Rules that the page offers."""


@dataclass(frozen=True)
class Settings:
    """What a run and the one that continues it must share.

    Attributes:
        memory_slots, policy, size: as in `Options`.
        adaptation: of the network; None: the weights are the model's own.
    """

    memory_slots: int
    policy: str
    size: int | None
    adaptation: Adaptation | None = None


class Options(Config):
    """Options of a run.

    Attributes:
        memory_slots: K, templates kept of each object.
        policy: the rule that chooses the slot to evict.
        size: working resolution: shorter side in pixels; None: the model's usual one.
        end: frame to stop before; 0: the video's end.
        both: whether to follow backward too, from the first frame that is marked.
        adapt: whether to adapt the network to the objects first.
    """

    memory_slots: Annotated[int, Field(ge=1, le=64)] = SHIPPED.memory_slots
    policy: Annotated[str, Field(max_length=40)] = SHIPPED.policy
    size: Annotated[int | None, Field(ge=64, le=2048)] = None
    end: Annotated[int, Field(ge=0, le=2**31)] = 0
    both: bool = True
    adapt: bool = False

    def settings(self, adaptation: Adaptation | None = None) -> Settings:
        """Return the settings that a continued session must share; not where it ends."""
        return Settings(self.memory_slots, self.policy, self.size, adaptation)

    def check(self, model: VideoModel, device: str) -> None:
        """Raise StremnError for options that the model does not support."""
        model.settled(self.asked(device))
        if self.adapt:
            model.check_adaptable()

    def open(self, model: VideoModel, device: str) -> Session:
        """Return a new session; reach and `every` are the model's usual ones."""
        return model.open(self.asked(device))

    def asked(self, device: str) -> Asked:
        """Return the options as models take them."""
        from stremn.segmentation.opening import Asked

        return Asked(self.memory_slots, self.policy, self.size, device=device)


def offered(model: VideoModel, device: str) -> dict[str, object]:
    """Return what the page offers with a model: its usual rule first, K, size, and adapting.

    Raises:
        StremnError: there is no such model or device.
    """
    from stremn.segmentation.opening import Asked, OwnModel

    usual = model.settled(Asked(device=device))
    return {
        "policies": [usual.policy, *(name for name in OFFERED if name != usual.policy)],
        "memory_slots": usual.memory_slots,
        "size": usual.size,
        "adapts": isinstance(model, OwnModel),
    }
