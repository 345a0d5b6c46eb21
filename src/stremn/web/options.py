"""How a visitor wants objects followed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from stremn.core.config import Config
from stremn.networks.defaults import SHIPPED

if TYPE_CHECKING:
    from stremn.networks.pretrained import Pretrained
    from stremn.segmentation.sessions import SegmentationSession

OFFERED = ("evidence", "learned", "oldest", "random-select", "spread", "most-similar")
"""Rules that the page offers."""


class Options(Config):
    """How to follow.

    Attributes:
        slots: K, of each object.
        policy: the rule that says which slot gives way.
        size: working size: shorter side in pixels.
        end: frame to stop before; 0: the video's end.
        both: whether to follow backward too, from the first frame that is marked.
        adapt: whether to adapt the network to the objects first.
    """

    slots: Annotated[int, Field(ge=1, le=64)] = SHIPPED.memory_slots
    policy: Annotated[str, Field(max_length=40)] = SHIPPED.policy
    size: Annotated[int, Field(ge=64, le=2048)] = SHIPPED.size
    end: Annotated[int, Field(ge=0, le=2**31)] = 0
    both: bool = True
    adapt: bool = False

    def settings(self) -> tuple[object, ...]:
        """Return what a session shares with one that it goes on from; not where it ends."""
        return (self.slots, self.policy, self.size, self.adapt)

    def check(self, device: str) -> None:
        """Refuse what no session takes; raises StremnError."""
        from stremn.segmentation.session_options import check_options

        check_options(
            memory_slots=self.slots, size=self.size, every=1, reach=None, policy=self.policy,
            device=device, precision="auto",
        )  # fmt: skip

    def open(self, model: Pretrained, device: str) -> SegmentationSession:
        """Return a new session; reach and `every` are the model's usual ones."""
        from stremn.segmentation.sessions import SegmentationSession

        usual = model.config.usual
        return SegmentationSession(
            model.model,
            device=device,
            memory_slots=self.slots,
            policy=self.policy,
            size=self.size,
            reach=usual.reach,
            every=usual.every,
        )
