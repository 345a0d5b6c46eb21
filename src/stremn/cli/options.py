"""Options that several verbs share, and what they mean together."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stremn.errors import StremnError

if TYPE_CHECKING:
    from stremn.networks.presets import Usual

Model = Annotated[
    str,
    typer.Option(
        help="Preset (small), weights file (.safetensors), folder that holds one, or hub id."
    ),
]
Slots = Annotated[int, typer.Option(help="K: templates kept of each object.")]
Policy = Annotated[
    str,
    typer.Option(
        help="Rule that says which template gives way: evidence, learned, oldest, ... (a wrong "
        "name lists all)."
    ),
]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, mps.")]
Precision = Annotated[str, typer.Option(help="Number format: auto, float32, bfloat16, float16.")]
Reach = Annotated[
    float | None,
    typer.Option(
        help="How far from where the object was, in object sizes, it may appear next; "
        "inf: anywhere. Default: the model's (small 0.5; STM, STCN inf)."
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        help="Shorter side in pixels that frames are brought to for the network; smaller is "
        "faster. Masks come out at the video's own size. Default: the model's (small 432; "
        "STM, STCN 480)."
    ),
]
PromptModel = Annotated[
    str,
    typer.Option(
        help="What finds the object of a box or clicks: small (shipped), a weights file, or "
        "grabcut (colors alone, no network)."
    ),
]
Every = Annotated[
    int | None,
    typer.Option(
        help="Memorize frames 0, n, 2n, ... Default: the model's (small 1: all; STM, STCN 5)."
    ),
]
Adapt = Annotated[
    int,
    typer.Option(
        min=0,
        help="Adapt the network to the objects of a video's first mask, in so many training steps "
        "(150 is usual): a few minutes more, better masks. 0: not. Needs the extra `train`.",
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")]


@dataclass(frozen=True)
class SessionOptions:
    """What a verb was told about its session; `checked` says no to what no session takes.

    Size, reach and every are the model's usual ones where the user said nothing (see `asked`).
    """

    slots: int
    policy: str
    device: str
    precision: str
    usual: Usual

    def checked(self) -> SessionOptions:
        """Return the options themselves, if a session takes them.

        Raises:
            StremnError: it does not; the message says what is wrong.
        """
        from stremn.segmentation.sessions import check_options

        check_options(**self.of_session(), device=self.device)
        return self

    def of_session(self) -> dict[str, Any]:
        """Return them as `SegmentationSession` takes them, all but the device."""
        return {
            "precision": self.precision,
            "memory_slots": self.slots,
            "policy": self.policy,
            "size": self.usual.size,
            "reach": self.usual.reach,
            "every": self.usual.every,
        }

    def settings(self) -> dict[str, str | float]:
        """Return what a run that goes on must have been begun with."""
        usual = self.usual
        settings: dict[str, str | float] = {"slots": self.slots, "policy": self.policy}
        settings |= {"size": usual.size}
        settings |= {"reach": "inf" if usual.reach is None else usual.reach}  # JSON has no infinity
        return settings | ({"every": usual.every} if usual.every > 1 else {})


def asked(model: str, size: int | None, reach: float | None, every: int | None) -> Usual:
    """Return what was asked for, and of what was not, what the model is usually run with.

    Raises:
        StremnError: there is no such model, or a reach that is none.
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
    """Return the reach as sessions take it: None if nothing is too far.

    Raises:
        StremnError: less than 0, or no number.
    """
    if not reach >= 0:
        raise StremnError(f"--reach is a number of object sizes, 0 or more, or inf; got {reach}.")
    return None if math.isinf(reach) else reach
