"""Training pictures of the prompt network: one object to find, cropped and moved at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from stremn.data.readers.paths import place
from stremn.data.readers.still_sets import open_stills
from stremn.data.readers.stills import SelectedStills, Still, StillImages
from stremn.errors import StremnError
from stremn.media.mask_codes import VOID
from stremn.training.prompting.recipe import PromptRecipe


@dataclass(frozen=True)
class PromptBatch:
    """Pictures in [0, 255], the object's mask, and masks of other objects and void pixels."""

    frames: UInt8[Tensor, "b 3 side side"]
    truth: Bool[Tensor, "b side side"]
    others: Bool[Tensor, "b side side"]
    void: Bool[Tensor, "b side side"]

    def to(self, device: torch.device) -> PromptBatch:
        """Copy to a device."""
        parts = (self.frames, self.truth, self.others, self.void)
        return PromptBatch(*(part.to(device, non_blocking=True) for part in parts))


def collate(samples: Sequence[tuple[np.ndarray, np.ndarray]]) -> PromptBatch:
    """Join samples (picture, codes): 1 is the object, 2 another, 255 void."""
    frames = torch.from_numpy(np.stack([frame for frame, _ in samples])).permute(0, 3, 1, 2)
    codes = torch.from_numpy(np.stack([code for _, code in samples]))
    return PromptBatch(frames.contiguous(), codes == 1, codes == 2, codes == VOID)


class PromptSamples(Dataset[tuple[np.ndarray, np.ndarray]]):
    """Random samples; sample i depends on the seed and i alone.

    Args:
        stills: sets of pictures.
        weights: how often each set is drawn from.
        count: how many samples there are.
        side: of the square cuts, in pixels.
        seed: of all draws.
        pasted: share of samples in which the object of another picture is pasted: it is then the
            object to find, or stands beside or before it.
    """

    def __init__(
        self,
        stills: Sequence[StillImages],
        weights: Sequence[float],
        count: int,
        side: int = 320,
        seed: int = 0,
        pasted: float = 0.45,
    ) -> None:
        self._stills, self._count, self._side, self._seed = list(stills), count, side, seed
        self._weights = np.asarray(weights, float) / np.sum(weights)
        self._pasted = pasted

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a picture "side side 3" and its codes "side side" (see `collate`)."""
        rng = np.random.default_rng([self._seed, index])
        while True:
            sample = self._sample(rng)
            if sample is not None:
                return sample

    def _draw(self, rng: np.random.Generator) -> Still:
        stills = self._stills[rng.choice(len(self._stills), p=self._weights)]
        return stills.load(int(rng.integers(len(stills))))

    def _sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
        still = self._draw(rng)
        ids = [i for i in np.unique(still.ids) if i not in (0, VOID)]
        if not ids:
            return None
        target = int(rng.choice(ids))
        codes = np.zeros_like(still.ids)
        codes[still.ids == VOID] = VOID
        codes[(still.ids != 0) & (still.ids != VOID)] = 2
        codes[still.ids == target] = 1
        image, codes = self._cut(rng, still.image, codes, wide=True)
        if rng.random() < self._pasted:
            image, codes = self._paste(rng, image, codes)
        share = (codes == 1).mean()
        if not 0.002 < share < 0.85:
            return None
        return _recolored(rng, image), codes

    def _cut(
        self, rng: np.random.Generator, image: np.ndarray, codes: np.ndarray, *, wide: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Turn, mirror, scale and cut out a square that shows the object."""
        left, top, width, height = cv2.boundingRect((codes == 1).astype(np.uint8))
        longer = max(width, height, 8)
        shown = float(np.exp(rng.uniform(np.log(0.15), np.log(1.1))))
        scale = self._side * shown / longer
        if wide:  # the picture fills most of the square, and is not blown up too far
            scale = max(scale, 0.85 * self._side / min(image.shape[:2]))
            scale = min(scale, max(3.0, self._side / max(image.shape[:2])))
        centre = (left + width / 2, top + height / 2)
        matrix: np.ndarray = cv2.getRotationMatrix2D(centre, rng.normal(0, 6), scale)
        if rng.random() < 0.5:
            mirror = np.array([[-1.0, 0, 2 * centre[0]], [0, 1, 0]])
            matrix = mirror @ np.vstack([matrix, [0, 0, 1]])
        room = self._side * max(0.1, 1 - scale * longer / self._side) / 2
        matrix[:, 2] += self._side / 2 - np.array(centre) + rng.uniform(-room, room, 2)
        if wide:
            matrix[:, 2] = matrix[:, 2] + _shift_inside(matrix, image.shape[:2], self._side)
        size = (self._side, self._side)
        how = cv2.INTER_AREA if scale < 0.7 else cv2.INTER_LINEAR
        moved = cv2.warpAffine(image, matrix, size, flags=how, borderMode=cv2.BORDER_REFLECT_101)
        inside = cv2.warpAffine(
            codes, matrix, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT,
            borderValue=3,
        )  # fmt: skip
        outside = inside == 3
        if outside.any():  # a mirrored object is none: its mirror image is not asked for
            moved[outside] = moved[~outside].mean(0) if (~outside).any() else 0
            inside[outside] = 0
        return moved, inside

    def _paste(
        self, rng: np.random.Generator, image: np.ndarray, codes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Paste another object; the object to find is either of the two."""
        still = self._draw(rng)
        ids = [i for i in np.unique(still.ids) if i not in (0, VOID)]
        if not ids:
            return image, codes
        other = (still.ids == int(rng.choice(ids))).astype(np.uint8)
        picture, mask = self._cut(rng, still.image, other, wide=False)
        mask = (mask == 1).astype(np.uint8)
        covered = ((codes == 1) & (mask == 1)).sum() / max((codes == 1).sum(), 1)
        if covered > 0.5 or mask.mean() < 0.003:
            return image, codes
        soft = cv2.GaussianBlur(mask.astype(np.float32), (3, 3), 0)[..., None]
        image = (picture * soft + image * (1 - soft)).astype(np.uint8)
        codes = codes.copy()
        if rng.random() < 0.5:
            codes[codes == 1] = 2
            codes[mask == 1] = 1
        else:
            codes[mask == 1] = 2 if rng.random() < 0.5 else 0
        return image, codes


def _shift_inside(matrix: np.ndarray, size: tuple[int, ...], side: int) -> Float[np.ndarray, "2"]:
    """Return the smallest shift after which the square shows no more outside than it must."""
    height, width = size
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]) @ matrix.T
    low, high = corners.min(0), corners.max(0)
    bounds = np.sort([-low, side - high], axis=0)  # either order: a small picture stays inside
    return np.clip(0.0, bounds[0], bounds[1])


def _recolored(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Change brightness, contrast and colors a little."""
    gain = rng.uniform(0.75, 1.25) * rng.uniform(0.92, 1.08, 3)
    shift = rng.uniform(-20, 20)
    return np.clip(image * gain + shift, 0, 255).astype(np.uint8)


def open_pictures(recipe: PromptRecipe, path: Path) -> dict[str, StillImages]:
    """Open the sets, without the pictures that are held out."""
    held: set[str] = set()
    if recipe.prompts.held_out is not None:
        names = path.parent / recipe.prompts.held_out
        try:
            held = set(names.read_text(encoding="utf-8").split())
        except OSError as error:
            raise StremnError(f"{names} (prompts.held_out) cannot be read: {error}.") from error
    opened: dict[str, StillImages] = {}
    for name, section in recipe.stills.items():
        stills = open_stills(place(section.path), section.kind, section.layout)
        kept = [i for i in range(len(stills)) if Path(stills.name(i)).stem not in held]
        opened[name] = SelectedStills(stills, kept)
    return opened
