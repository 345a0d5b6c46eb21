"""Functions of earlier versions, now methods of `Track`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from stremn.memory.choices import Choice
from stremn.networks.model import Query, STReMN
from stremn.networks.windows import Window
from stremn.segmentation.tracks import Track

start = Track.empty


def segment(
    model: STReMN, track: Track, query: Query, windows: Sequence[Window] | None = None
) -> Tensor:
    """Return `track.segment(model, query, windows)`."""
    return track.segment(model, query, windows)


def memorize(
    model: STReMN, track: Track, query: Query, probabilities: Tensor, **options: Any
) -> tuple[Track, Choice]:
    """Return `track.memorize(model, query, probabilities, **options)`."""
    return track.memorize(model, query, probabilities, **options)
