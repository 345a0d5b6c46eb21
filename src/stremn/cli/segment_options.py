"""Options of `segment` alone, in groups: which objects, and what is written."""

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
    typer.Argument(
        help="Video file, folder or glob of images, URL, camera (0, 1, ..., unless a file "
        "has that name)."
    ),
]
Mask = Annotated[
    Path | None,
    typer.Option(
        help="Mask of the first frame, or a folder of masks: named like frames "
        "(`00000.png`: objects may enter later), or one file an object."
    ),
]
BoxText = Annotated[
    str | None,
    typer.Option(help="`x,y,width,height` in pixels: a box round the object in the first frame."),
]
ClickText = Annotated[
    str | None,
    typer.Option(help='`"x,y x,y ..."` in pixels: points on the object in the first frame.'),
]
Exclude = Annotated[
    str | None,
    typer.Option(help='`"x,y ..."`: with `--box` or `--click`, points that are not on the object.'),
]
Objects = Annotated[
    list[str] | None,
    typer.Option(
        "--object",
        help='`"id=2 box=x,y,w,h on=x,y off=x,y at=120"`: an object by box and points '
        "together, at any frame; repeat it for more objects.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run.")]
Probabilities = Annotated[
    bool,
    typer.Option("--probabilities", help="Write soft masks too: OUT/probabilities/*.npz."),
]
Coco = Annotated[bool, typer.Option("--coco", help="Write OUT/objects.json in COCO form too.")]
Opacity = Annotated[
    float, typer.Option(help="How strongly the overlay fills an object: 0 (not) to 1.")
]
Outline = Annotated[bool, typer.Option(help="Draw a line round every object.")]
Labels = Annotated[bool, typer.Option(help="Write every object's id on it.")]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Stop after so many frames of the video (--resume goes on); 1 shows what a box or "
        "click found.",
    ),
]


@dataclass(frozen=True)
class Given:
    """Which objects to follow: one of mask, box and click, and prompts for single objects.

    `prompt_model` finds those of a box or clicks, on `device`.
    """

    mask: Path | None
    box: str | None
    click: str | None
    exclude: str | None
    objects: tuple[str, ...]
    prompt_model: str
    device: str

    def masks_for(self, frames: FrameSource) -> MaskOf:
        """Return what gives the masks of `frames`; raises as `stremn.media.given.masks_for`."""
        from stremn.media.given import masks_for

        prompts = self.box, self.click, self.exclude, self.objects
        return masks_for(frames, self.mask, *prompts, self._finder())

    def _finder(self) -> MaskFinder:
        """Return what finds objects; a network is loaded only where there is something to find."""
        from stremn.media.finding import grab_cut

        if self.box is None and self.click is None and not self.objects:
            return grab_cut
        from stremn.prompting.masks import mask_finder

        return mask_finder(self.prompt_model, device=self.device)


@dataclass(frozen=True)
class Output:
    """What is written, and where."""

    out: Path
    existing: Existing
    probabilities: bool
    coco: bool
    style: OverlayStyle


def existing_run(resume: bool, overwrite: bool) -> Existing:
    """Return what to do with an earlier run in the output folder."""
    return "resume" if resume else "replace" if overwrite else "refuse"
