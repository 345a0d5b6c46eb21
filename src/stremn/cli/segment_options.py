"""Options of `stremn segment`: which objects to follow, and what to write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stremn.media.drawing import OverlayStyle
    from stremn.media.finding import MaskFinder
    from stremn.media.frames import FrameSource
    from stremn.media.given import MaskOf
    from stremn.media.run_folder import Existing

Source = Annotated[
    str,
    typer.Argument(help="Video file, folder or glob of images, URL, or camera number (0, 1, ...)."),
]
Mask = Annotated[
    Path | None,
    typer.Option(
        help="Mask of the first frame, or a folder of masks: one per frame, named like the frames "
        "(objects may enter later), or one per object."
    ),
]
BoxText = Annotated[
    str | None,
    typer.Option(help="`x,y,width,height` in pixels: a box around the object in the first frame."),
]
ClickText = Annotated[
    str | None,
    typer.Option(help='`"x,y x,y ..."` in pixels: points on the object in the first frame.'),
]
Exclude = Annotated[
    str | None,
    typer.Option(help='`"x,y ..."` in pixels: points off the object, with `--box` or `--click`.'),
]
Objects = Annotated[
    list[str] | None,
    typer.Option(
        "--object",
        help='`"id=2 box=x,y,w,h on=x,y off=x,y at=120"`: mark an object by a box and points '
        "in any frame. Repeat it for more objects.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run.")]
Probabilities = Annotated[
    bool,
    typer.Option("--probabilities", help="Also write soft masks to OUT/probabilities/*.npz."),
]
Coco = Annotated[bool, typer.Option("--coco", help="Also write OUT/objects.json in COCO format.")]
Opacity = Annotated[float, typer.Option(help="Opacity of the masks in the overlay, from 0 to 1.")]
Outline = Annotated[bool, typer.Option(help="Draw an outline around each object in the overlay.")]
Labels = Annotated[bool, typer.Option(help="Write the id on each object in the overlay.")]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Stop after this many frames; --resume continues. 1 writes a preview of the first "
        "frame's mask.",
    ),
]


@dataclass(frozen=True)
class Given:
    """Which objects to follow: a mask, box or click, and prompts for single objects.

    `prompt_model` turns a box or clicks into a mask, on `device`.
    """

    mask: Path | None
    box: str | None
    click: str | None
    exclude: str | None
    objects: tuple[str, ...]
    prompt_model: str
    device: str

    def masks_for(self, frames: FrameSource) -> MaskOf:
        """Return the function that gives a frame's mask; raises as `media.given.masks_for`."""
        from stremn.media.given import masks_for

        prompts = self.box, self.click, self.exclude, self.objects
        return masks_for(frames, self.mask, *prompts, self._finder())

    def _finder(self) -> MaskFinder:
        """Return the function that finds objects; load a network only if it is needed."""
        from stremn.media.finding import grab_cut

        if self.box is None and self.click is None and not self.objects:
            return grab_cut
        from stremn.prompting.masks import mask_finder

        return mask_finder(self.prompt_model, device=self.device)


@dataclass(frozen=True)
class Output:
    """What to write, and where."""

    out: Path
    existing: Existing
    probabilities: bool
    coco: bool
    style: OverlayStyle


def existing_run(resume: bool, overwrite: bool) -> Existing:
    """Return how to treat an earlier run in the output folder."""
    return "resume" if resume else "replace" if overwrite else "refuse"
