"""Choose formats by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from stremn.errors import StremnError
from stremn.media.codecs import H264, prores_4444, vp9_alpha
from stremn.media.formats.base import Format
from stremn.media.formats.categories import Categories
from stremn.media.formats.coco import Coco, Polygons
from stremn.media.formats.cvat import Cvat
from stremn.media.formats.exr import exr
from stremn.media.formats.looks import BlurredBackground, CutOut, PlainBackground
from stremn.media.formats.mots import Mots
from stremn.media.formats.pictures import FolderFormat, VideoFormat, png_of
from stremn.media.formats.single_objects import MaskFolders, MaskVideos
from stremn.media.formats.yolo import Yolo
from stremn.media.formats.youtube_vis import YouTubeVis

GREEN = (0, 177, 64)
"""The color of a studio's green screen."""

_MAKERS: dict[str, Callable[[Categories], Format]] = {
    "coco": Coco,
    "coco-polygons": lambda categories: Coco(categories, Polygons(), "coco-polygons"),
    "yolo": Yolo,
    "youtube-vis": YouTubeVis,
    "mots": Mots,
    "cvat": Cvat,
    "mask-folders": lambda _: MaskFolders(),
    "mask-videos": lambda _: MaskVideos(),
    "cut-out": lambda _: FolderFormat("cut-out", png_of(CutOut())),
    "cut-out-webm": lambda _: VideoFormat("cut-out-webm", CutOut(), vp9_alpha()),
    "cut-out-prores": lambda _: VideoFormat("cut-out-prores", CutOut(), prores_4444()),
    "green-screen": lambda _: VideoFormat("green-screen", PlainBackground(GREEN), H264()),
    "black-background": lambda _: VideoFormat(
        "black-background", PlainBackground((0, 0, 0)), H264()
    ),
    "blurred-background": lambda _: VideoFormat("blurred-background", BlurredBackground(), H264()),
    "exr": lambda _: exr(),
}

FORMATS = tuple(_MAKERS)
"""The names of all formats."""


def choose_formats(
    names: Iterable[str], categories: Categories | None = None
) -> tuple[Format, ...]:
    """Return the formats of these names, each once, in their order.

    Raises:
        StremnError: there is no such format, or the package that it needs is missing.
    """
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        if name not in _MAKERS:
            raise StremnError(f"There is no format {name!r}. The formats are {', '.join(FORMATS)}.")
    formats = tuple(_MAKERS[name](categories or Categories()) for name in chosen)
    for made in formats:
        made.check((), (1, 1))
    return formats


def file_patterns(names: Iterable[str]) -> list[str]:
    """Return the patterns of the files of the formats that are called so; see `Format.files`."""
    known = [_MAKERS[name](Categories()) for name in names if name in _MAKERS]
    return [pattern for made in known for pattern in made.files]
