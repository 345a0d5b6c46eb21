"""Training clips of a predictor: batches and samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from stremn.data.readers.frame_clips import FrameClips, GeneratedClips, Split, check_disjoint
from stremn.data.readers.prediction_sets import open_clips
from stremn.training.prediction.recipe import PredictionRecipe


@dataclass(frozen=True)
class FrameBatch:
    """Clips for training: uint8 frames, grey or RGB."""

    frames: UInt8[Tensor, "b t c height width"]

    def to(self, device: torch.device) -> FrameBatch:
        """Copy to a device."""
        return FrameBatch(self.frames.to(device))


def collate(clips: Sequence[UInt8[Tensor, "t c height width"]]) -> FrameBatch:
    """Join clips of equal shape into a batch."""
    return FrameBatch(torch.stack(list(clips)))


class NumberedClips(Dataset[Tensor]):
    """Numbered samples of a training, as many as it needs; each depends on its number alone.

    Sample i is clip i of a source that generates its clips, which are in random order. Of a source
    of stored clips, which follow one another in their videos, it is a clip drawn with (seed, i).
    """

    def __init__(self, clips: FrameClips, length: int, seed: int) -> None:
        self.clips, self.length, self.seed = clips, length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        if isinstance(self.clips, GeneratedClips):
            return self.clips[index]
        words = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        return self.clips[int(torch.randint(len(self.clips), (), generator=words))]


def clips_of(recipe: PredictionRecipe, split: Split) -> FrameClips:
    """Return the clips of a split, as long as the recipe's horizon."""
    lengths = {
        "train": recipe.train.steps * recipe.batch,
        "val": recipe.validation.clips,
        "test": 1000,
    }
    return open_clips(
        recipe.data,
        split,
        observed=recipe.horizon.observed,
        future=recipe.horizon.future,
        length=lengths[split],
        seed=recipe.train.seed,
    )


def training_clips(recipe: PredictionRecipe) -> tuple[FrameClips, FrameClips]:
    """Return the clips for training and those for validation.

    Raises:
        StremnError: they cannot be read, or one source is in both.
    """
    clips, held_out = clips_of(recipe, "train"), clips_of(recipe, "val")
    check_disjoint({"train": clips, "val": held_out})
    return clips, held_out
