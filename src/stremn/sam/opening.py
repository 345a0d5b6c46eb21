"""Open a model by name: this package's own, or a SAM model."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from stremn.core.hardware import pick_device, pick_precision
from stremn.core.hub import UNREACHABLE, HubModel
from stremn.core.weights import fingerprint
from stremn.errors import StremnError
from stremn.sam.rules import SAM_POLICY, checked_slots, sam_rule
from stremn.segmentation.opening import Asked, OwnModel, VideoModel

if TYPE_CHECKING:  # needs the extra
    from stremn.sam.finding import SamFinder
    from stremn.sam.models import SamModel
    from stremn.sam.sessions import SamSession

MEANINGLESS = {
    "size": "a SAM model sees every frame at a size of its own",
    "reach": "a SAM model always reads the whole frame",
    "every": "a SAM model remembers every frame",
}
"""What a SAM session cannot be asked for, and why."""


def video_model(source: str) -> VideoModel:
    """Return the model of a name; its weights are not read yet.

    Args:
        source: preset, weights file, folder (this package's or transformers'), or hub id.
    """
    return SamVideoModel(source) if is_sam(source) else OwnModel(source)


def is_sam(source: str) -> bool:
    """Return whether a folder or hub id holds a model of transformers; the hub is asked.

    What cannot be found is none; whoever loads it says what is wrong.
    """
    path = Path(source)
    if path.is_dir():
        return _names_a_type(path / "config.json")
    if path.exists() or path.suffix == ".safetensors":
        return False
    on_hub = HubModel.parse(source)
    try:
        return on_hub is not None and _names_a_type(on_hub.download("config.json"))
    except UNREACHABLE:
        return False


def _names_a_type(path: Path) -> bool:
    try:
        return "model_type" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


class SamVideoModel:
    """A `VideoModel` of transformers, by hub id or folder; sessions and finder share weights."""

    def __init__(self, source: str) -> None:
        self.source = source

    def settled(self, asked: Asked) -> Asked:
        """Return `asked` with the rule and the K that the model was trained with."""
        from stremn.sam.models import sam_config

        for name, reason in MEANINGLESS.items():
            if getattr(asked, name) is not None:
                raise StremnError(f"--{name} cannot be used: {reason}. Leave it out.")
        slots = sam_config(self.source).num_maskmem
        slots = slots if asked.memory_slots is None else checked_slots(asked.memory_slots)
        policy = SAM_POLICY if asked.policy is None else asked.policy
        sam_rule(policy)
        pick_precision(asked.precision, pick_device(asked.device))
        return replace(asked, memory_slots=slots, policy=policy)

    def open(self, asked: Asked) -> SamSession:
        """Return a new session."""
        from stremn.sam.sessions import SamSession

        settled = self.settled(asked)
        return SamSession(
            self._loaded,
            device=settled.device,
            precision=settled.precision,
            memory_slots=settled.memory_slots,
            policy=settled.policy or SAM_POLICY,
            seed=settled.seed,
        )

    def resume(self, path: Path, asked: Asked) -> SamSession:
        """Resume a session."""
        from stremn.sam.sessions import SamSession

        return SamSession.load(path, self._loaded, device=asked.device)

    def finder(self, asked: Asked) -> SamFinder:
        """Return the model's own prompt encoder and mask decoder."""
        from stremn.sam.finding import SamFinder

        return SamFinder(self._loaded, device=asked.device, precision=asked.precision)

    @property
    def side(self) -> int:
        """Side in pixels of the square that frames are resized to."""
        return self._loaded.size

    def fingerprint(self) -> int:
        """Return a checksum of the weights."""
        return fingerprint(self._loaded.network)

    def check_adaptable(self) -> NoReturn:
        """Refuse: only this package's own networks can be adapted.

        Raises:
            StremnError: always.
        """
        raise StremnError(
            f"{self.source} is a SAM model, and only this package's own networks can be adapted to "
            "objects. Leave --adapt out, or choose another --model."
        )

    def pretrained(self) -> NoReturn:
        """Refuse, as `check_adaptable`."""
        self.check_adaptable()

    @cached_property
    def _loaded(self) -> SamModel:
        from stremn.sam.models import load_sam

        return load_sam(self.source)
