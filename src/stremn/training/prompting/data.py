"""Training pictures of the prompt network: one object to find, cropped and moved at random."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from stremn.data.clips.still_layers import reduced
from stremn.data.readers.paths import place
from stremn.data.readers.still_sets import open_stills
from stremn.data.readers.stills import SelectedStills, Still, StillImages
from stremn.errors import StremnError
from stremn.media.frames import Picture
from stremn.media.mask_codes import VOID
from stremn.training.prompting.checking import checked_pictures
from stremn.training.prompting.recipe import PicturesSection, PromptRecipe

SMALLEST, LARGEST = 0.002, 0.85
"""Shares of a cut that the object to find may cover."""

ATTEMPTS = 1000
"""Draws of a sample, at most: where one picture in fifty can be used, one is still found."""


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
        """Return a picture "side side 3" and its codes "side side" (see `collate`).

        Raises:
            StremnError: a picture cannot be read, or no draw shows an object of fit size.
        """
        rng = np.random.default_rng([self._seed, index])
        for _ in range(ATTEMPTS):
            sample = self._sample(rng)
            if sample is not None:
                return sample
        raise StremnError(
            f"No usable picture in {ATTEMPTS} draws: expected an object that covers "
            f"{SMALLEST:.1%} to {LARGEST:.0%} of a cut of {self._side}x{self._side} pixels, got "
            "masks without objects, or with smaller or larger ones. Check the masks of the "
            'recipe\'s stills, and their kind ("binary" or "instances").'
        )

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
        if not SMALLEST < share < LARGEST:
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
        moved = _warped(image, matrix, scale, size)
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


def _warped(
    image: Picture, matrix: np.ndarray, scale: float, size: tuple[int, int]
) -> UInt8[np.ndarray, "side side 3"]:
    """Draw a picture by an affine matrix that scales it; what lies beyond its edge is mirrored.

    `warpAffine` cannot average: a picture that becomes much smaller is shrunk first.
    """
    small, _, _, _ = reduced(image, None, None, scale)
    x, y = (image.shape[axis] / small.shape[axis] for axis in (1, 0))
    # The middle of pixel 0 is at 0 in both pictures, their corners are at -0.5.
    enlarged = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
    return cv2.warpAffine(
        small, matrix @ enlarged, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )


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


def prompt_samples(recipe: PromptRecipe, stills: Mapping[str, StillImages]) -> PromptSamples:
    """Return all samples of a training; `stills` are the open sets by name."""
    section = recipe.prompts
    return PromptSamples(
        list(stills.values()),
        [recipe.stills[name].weight for name in stills],
        recipe.train.steps * section.batch,
        section.side,
        recipe.train.seed,
        section.pasted,
    )


def open_pictures(
    recipe: PromptRecipe, path: Path, *, check: bool = False
) -> dict[str, StillImages]:
    """Open the sets of the recipe at `path`, without the pictures that are held out.

    With `check`, read all pictures, and treat problems as the recipe says (`data.check`).

    Raises:
        StremnError: a folder or the list of held-out pictures cannot be read, no picture of a set
            is left, or pictures cannot be used: these are listed together.
    """
    held = _held_out(recipe, path)
    opened = {name: _kept(name, section, held) for name, section in recipe.stills.items()}
    if check and recipe.data.check != "off":
        return checked_pictures(recipe, opened, held)
    return opened


def _held_out(recipe: PromptRecipe, path: Path) -> set[str]:
    """Return the names of the pictures that are never trained on."""
    if recipe.prompts.held_out is None:
        return set()
    names = path.parent / recipe.prompts.held_out
    try:
        return set(names.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise StremnError(f"{names} (prompts.held_out) cannot be read: {error}.") from error


def _kept(name: str, section: PicturesSection, held: Collection[str]) -> StillImages:
    """Open a set without the pictures in `held`."""
    stills = open_stills(place(section.path), section.kind, section.layout)
    kept = [i for i in range(len(stills)) if Path(stills.name(i)).stem not in held]
    if not kept:
        raise StremnError(
            f"All {len(stills)} pictures of stills.{name} are held out: none is left to train on. "
            "Name fewer of them in the file of prompts.held_out, or remove the set from the recipe."
        )
    return SelectedStills(stills, kept)
