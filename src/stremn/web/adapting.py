"""Networks that are adapted to a visitor's objects."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stremn.web.following import together
from stremn.web.shelf import FrameShelf
from stremn.web.takes import Given, SavedStates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stremn.segmentation.opening import VideoModel
    from stremn.web.drawing import Packed

_MOST_KNOWN = 200
"""Adaptations that undo can come back to."""


@dataclass(frozen=True)
class Adaptation:
    """What a network is adapted to.

    Attributes:
        frame: the first one that is marked.
        masks: of the objects in it, by their ids.
    """

    frame: int
    masks: Mapping[int, Packed]

    @classmethod
    def to(cls, given: Given) -> Adaptation:
        """Return the adaptation to the first of the given frames; there is one or more."""
        frame = min(given)
        return cls(frame, given[frame])

    def fits(self, given: Given, objects: Set[int]) -> bool:
        """Return whether it holds for these given masks of these objects.

        It may know other objects, which have been removed since.
        """
        remaining = {item: mask for item, mask in self.masks.items() if item in objects}
        return Adaptation(self.frame, remaining) == Adaptation.to(given)


class Adapter:
    """Adapts the network to a visitor's objects, and keeps the latest result.

    Adapting twice to the same masks need not lead to the same weights. Saved sessions are
    therefore removed together with the weights that they were computed with.
    """

    def __init__(self, shelf: FrameShelf, states: SavedStates, device: str) -> None:
        self._shelf = shelf
        self._states = states
        self._device = device
        self._known: deque[Adaptation] = deque(maxlen=_MOST_KNOWN)
        self._latest: tuple[Adaptation, VideoModel] | None = None

    def choose(self, given: Given, objects: Set[int]) -> Adaptation:
        """Return the adaptation that was chosen last of those that fit; a new one if none does."""
        fitting = (one for one in reversed(self._known) if one.fits(given, objects))
        chosen = next(fitting, None) or Adaptation.to(given)
        if chosen in self._known:
            self._known.remove(chosen)
        self._known.append(chosen)
        return chosen

    def model(
        self, base: VideoModel, adaptation: Adaptation, watch: Callable[[int, int], None]
    ) -> VideoModel:
        """Return a model after an adaptation; `watch` is called at each step of a new one.

        Raises:
            StremnError: it cannot be adapted to these masks; errors of `watch` end it too.
        """
        if self._latest is None or self._latest[0] != adaptation:
            model = self._adapted(base, adaptation, watch)
            self._forget_latest()
            self._latest = (adaptation, model)
        return self._latest[1]

    def _adapted(
        self, base: VideoModel, adaptation: Adaptation, watch: Callable[[int, int], None]
    ) -> VideoModel:
        from stremn.segmentation.opening import OwnModel
        from stremn.training.segmentation.adaptation import adapt

        labels = together(adaptation.masks, adaptation.masks.keys())
        assert labels is not None  # a mask is given
        frame = self._shelf.picture(adaptation.frame)
        return OwnModel(adapt(base.pretrained(), frame, labels, device=self._device, watch=watch))

    def _forget_latest(self) -> None:
        if self._latest is not None:
            adaptation, _ = self._latest
            self._states.remove(lambda state: state.settings.adaptation == adaptation)
