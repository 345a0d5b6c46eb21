"""Options of `stremn segment`: which objects to follow, and what to write."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stremn.cli.options import PROMPT_MODEL, Out
from stremn.errors import StremnError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stremn.media.drawing import OverlayStyle
    from stremn.media.finding import MaskFinder
    from stremn.media.formats.base import Format
    from stremn.media.frames import FrameSource
    from stremn.media.given import GivenMasks
    from stremn.media.results import ResultWriter
    from stremn.media.run_folder import Existing
    from stremn.segmentation.opening import Asked, VideoModel

Source = Annotated[
    str,
    typer.Argument(help="Video file, folder or glob of images, URL, or camera number (0, 1, ...)."),
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
        "in any frame. Repeatable.",
    ),
]
Live = Annotated[
    bool,
    typer.Option(
        "--live",
        help="Show the masks live, in a window or on a web page. Frames that arrive while the "
        "model is busy are dropped. For cameras and streams; a file is played at its own rate.",
    ),
]
Port = Annotated[
    int | None,
    typer.Option(help="Port of the web page of `--live`; 0 takes any free one. Default: 7861."),
]
FormatNames = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        help="Also write a format for other programs; repeatable: coco, coco-polygons, yolo, "
        "youtube-vis, mots, cvat, mask-folders, mask-videos, cut-out, cut-out-webm, "
        "cut-out-prores, green-screen, black-background, blurred-background, exr.",
    ),
]
CategoryNames = Annotated[
    str | None,
    typer.Option(
        "--names", help='`"1=cat,2=dog"`: category of each object, for formats with categories.'
    ),
]
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
    """Options that mark the objects: a mask, box or click (`at` a moment), and single objects."""

    mask: Annotated[
        Path | None,
        typer.Option(
            help="Mask of the first frame (or of `--at`), or a folder of masks: one per frame, "
            "named like the frames (objects may enter later), or one per object."
        ),
    ] = None
    box: BoxText = None
    click: ClickText = None
    exclude: Exclude = None
    objects: Objects = None
    at: Annotated[
        str | None,
        typer.Option(
            help="Moment of the frame that `--mask`, `--box` or `--click` marks: frame number "
            "(300), seconds (12.5s) or timecode (00:01:02.5). Default: the first frame."
        ),
    ] = None
    prompt_model: Annotated[
        str | None,
        typer.Option(help=f"{PROMPT_MODEL} Default: `small`; SAM models use their own."),
    ] = None

    def masks_for(self, frames: FrameSource, model: VideoModel, asked: Asked) -> GivenMasks:
        """Return the given masks of a video; raises as `media.given.masks_for`."""
        from stremn.media.given import masks_for

        prompts = self.box, self.click, self.exclude, self.objects or ()
        return masks_for(frames, self.mask, *prompts, self._finder(model, asked), at=self.at)

    def _finder(self, model: VideoModel, asked: Asked) -> MaskFinder:
        """Return the finder of objects: the model's own, if none is named and it has one.

        A network is loaded only if there are boxes or clicks.
        """
        from stremn.media.finding import grab_cut

        if self.box is None and self.click is None and not self.objects:
            return grab_cut
        from stremn.prompting.masks import mask_finder
        from stremn.prompting.weights import SHIPPED

        own = model.finder(asked) if self.prompt_model is None else None
        return own or mask_finder(self.prompt_model or SHIPPED, device=asked.device)


@dataclass(frozen=True)
class Span:
    """Options that select a part of the video; None is its start or end."""

    start: Annotated[
        str | None, typer.Option(help="Start at this moment, written as for `--at`.")
    ] = None
    end: Annotated[
        str | None,
        typer.Option(help="Stop before this moment; its frame is not segmented."),
    ] = None
    both_ways: Annotated[
        bool,
        typer.Option(
            "--both-ways",
            help="Also segment backward, to the first frame (or --start). Between two given frames "
            "the results of both directions are averaged. Takes up to twice the time.",
        ),
    ] = False

    def opened(self, source: str) -> FrameSource:
        """Open a video at `start`, to be read up to `end`.

        Raises:
            StremnError: it cannot be opened, or the span is not in it.
        """
        from stremn.media.ranges import frames_within
        from stremn.media.video import open_frames

        frames = open_frames(source)
        try:
            first, frames.stop = frames_within(frames, self.start, self.end)
        except StremnError:
            frames.close()
            raise
        return reopened(frames, source, first)

    def settings(self) -> dict[str, str | float]:
        """Return the settings that a resumed run must share."""
        both_ways = self.both_ways or None
        given = {"start": self.start, "end": self.end, "both_ways": both_ways}
        return {name: value for name, value in given.items() if value is not None}


def reopened(frames: FrameSource, source: str, start: int) -> FrameSource:
    """Return the video from frame `start` on, with the same end; the old one is closed."""
    from stremn.media.video import open_frames

    if start == frames.start:
        return frames
    frames.close()
    return open_frames(source, start=start, end=frames.stop)


@dataclass(frozen=True)
class Output:
    """Options of the output: what to write, where, and what to do with an earlier run."""

    out: Out = Path("out")
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run.")] = False
    probabilities: Annotated[
        bool,
        typer.Option("--probabilities", help="Also write soft masks to OUT/probabilities/*.npz."),
    ] = False
    coco: Annotated[
        bool, typer.Option("--coco", help="Also write OUT/objects.json; same as --format coco.")
    ] = False
    formats: FormatNames = None
    names: CategoryNames = None
    opacity: Annotated[
        float, typer.Option(help="Opacity of the masks in the overlay, from 0 to 1.")
    ] = 0.3
    outline: Annotated[
        bool, typer.Option(help="Draw an outline around each object in the overlay.")
    ] = True
    labels: Annotated[bool, typer.Option(help="Write the id on each object in the overlay.")] = True
    fps: Annotated[
        float | None,
        typer.Option(
            help="Frames per second of the overlay. Below the video's rate, frames are left out; "
            "images are shown at this rate. Default: the video's rate; 25 for images."
        ),
    ] = None
    scale: Annotated[float, typer.Option(help="Size of the overlay relative to the video.")] = 1.0

    @property
    def existing(self) -> Existing:
        """How to treat an earlier run in the output folder."""
        return "resume" if self.resume else "replace" if self.overwrite else "refuse"

    @cached_property
    def style(self) -> OverlayStyle:
        """How the overlay looks; raises StremnError for numbers out of range."""
        from stremn.media.drawing import OverlayStyle

        return OverlayStyle(self.opacity, self.outline, self.labels, self.scale)

    @cached_property
    def chosen(self) -> tuple[Format, ...]:
        """The requested formats; raises as `chosen_formats`."""
        return chosen_formats(self.formats, self.coco, self.names)

    def check(self) -> None:
        """Refuse unknown formats and numbers out of range, before anything is opened."""
        _ = self.style, self.chosen

    def writer(
        self, frames: FrameSource, settings: Mapping[str, Any], *, first: int = 0
    ) -> ResultWriter:
        """Open the output folder for the results of a video.

        Args:
            frames: the video.
            settings: what a resumed run must share with the interrupted one.
            first: index of the run's first frame.

        Raises:
            StremnError: an earlier run is in the way, or the folder cannot be written.
        """
        from stremn.media.results import ResultWriter

        return ResultWriter(
            self.out,
            fps=frames.fps,
            settings=settings,
            existing=self.existing,
            probabilities=self.probabilities,
            formats=self.chosen,
            style=self.style,
            first=first,
            overlay_fps=self.fps,
            pixel_aspect=frames.pixel_aspect,
            sound=frames.sound,
        )


def chosen_formats(
    names: list[str] | None, coco: bool, categories: str | None
) -> tuple[Format, ...]:
    """Return the requested formats.

    Raises:
        StremnError: there is no such format, its package is missing, or the categories' names are
            none, or are of no use.
    """
    from stremn.media.formats.categories import Categories
    from stremn.media.formats.choosing import choose_formats

    wanted = [*(names or ()), *(["coco"] if coco else [])]
    if categories is not None and not wanted:
        raise StremnError("--names goes with a --format that has categories, such as coco.")
    known = Categories() if categories is None else Categories.parse(categories)
    return choose_formats(wanted, known)
