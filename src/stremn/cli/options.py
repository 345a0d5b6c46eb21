"""Options that several commands share."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stremn.errors import StremnError

if TYPE_CHECKING:
    from stremn.networks.defaults import SessionDefaults

_MODEL = (
    "Preset (`small`), weights file (.safetensors), folder with one, or hub id (owner/name or "
    "owner/name@REVISION)"
)
Model = Annotated[str, typer.Option(help=f"{_MODEL}.")]
Slots = Annotated[int, typer.Option(help="K: number of templates kept per object.")]
Policy = Annotated[
    str,
    typer.Option(
        help="Replacement rule: `evidence` (default), `learned` (the paper's), `oldest`, ... An "
        "unknown name prints all."
    ),
]
SlotsOrUsual = Annotated[
    int | None,
    typer.Option(
        help="K: templates kept of each object. Default: 6; for SAM models 7, as in training."
    ),
]
PolicyOrUsual = Annotated[
    str | None,
    typer.Option(
        help="Replacement rule: `evidence` (default), `learned` (the paper's), `oldest` (default "
        "for SAM models), ... An unknown name prints all."
    ),
]
Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda, mps.")]
Precision = Annotated[str, typer.Option(help="Number format: auto, float32, bfloat16, float16.")]
Reach = Annotated[
    float | None,
    typer.Option(
        help="Search window: how far from its last place an object may be in the next frame, in "
        "object sizes; `inf` searches the whole frame. Default: 0.5 for `small`, inf for STM, STCN."
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        help="Working resolution: shorter side in pixels that frames are resized to for the "
        "network. Smaller is faster. Masks have the size of the video. Default: 432 for `small`, "
        "480 for STM, STCN."
    ),
]
_PROMPT_MODEL = (
    "Model that turns a box or clicks into a mask: `small` (shipped), a weights file, or "
    "`grabcut` (colors only, no network)."
)
PromptModel = Annotated[str, typer.Option(help=_PROMPT_MODEL)]
PromptModelOrOwn = Annotated[
    str | None,
    typer.Option(help=f"{_PROMPT_MODEL} Default: `small`; a SAM model does it itself."),
]
AnyModel = Annotated[
    str,
    typer.Option(
        help=f"{_MODEL}; or SAM 2.1, EdgeTAM or SAM 3 of transformers, by hub id or folder."
    ),
]
Every = Annotated[
    int | None,
    typer.Option(help="Memorize every n-th frame only. Default: 1 for `small`, 5 for STM, STCN."),
]
Adapt = Annotated[
    int,
    typer.Option(
        min=0,
        help="Training steps on the first frame and its mask before the video is segmented, for "
        "example 150: better masks, minutes more. 0 turns it off. Needs the extra `train`.",
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")]


def asked(model: str, size: int | None, reach: float | None, every: int | None) -> SessionDefaults:
    """Return the user's size, reach and every, with the model's defaults for those not given.

    Raises:
        StremnError: an unknown model, or a reach below 0.
    """
    from stremn.networks.pretrained import config_of

    usual = config_of(model).usual
    return replace(
        usual,
        size=usual.size if size is None else size,
        reach=usual.reach if reach is None else within(reach),
        every=usual.every if every is None else every,
    )


def within(reach: float) -> float | None:
    """Return the reach as sessions take it; infinity becomes None.

    Raises:
        StremnError: below 0, or not a number.
    """
    if not reach >= 0:
        raise StremnError(f"--reach must be 0 or more, in object sizes, or inf; got {reach}.")
    return None if math.isinf(reach) else reach
